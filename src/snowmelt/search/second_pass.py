"""What do searches have in common that choose among the hypotheses of another search?

Invariant: states are the first pass's, and so is every verb but the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from snowmelt.search.method import SearchMethod, SearchResult
from snowmelt.search.scorer import FloatArray, IntArray, Scorer

__all__ = ["SecondPass"]

SearchT = TypeVar("SearchT", bound=SearchMethod[Any])
State = TypeVar("State")


@dataclass(frozen=True)
class SecondPass(Generic[SearchT, State]):
    """See `search.method.SearchMethod`; what differs between such searches is `n_best`.

    Attributes:
        search: the first pass.
    """

    search: SearchT

    def init_state(self, scorer: Scorer) -> State:
        """State of a stream that has heard nothing."""
        return cast(State, self.search.init_state(scorer))

    def step(
        self, scorer: Scorer, encoder_proj: FloatArray, lens: IntArray, states: Sequence[State]
    ) -> list[State]:
        """Advance N streams; see `SearchMethod.step`."""
        return self.search.step(scorer, encoder_proj, lens, states)

    def result(self, scorer: Scorer, state: State, *, is_final: bool) -> SearchResult:
        """The best hypothesis; see `SearchMethod.result`."""
        return self.n_best(scorer, state, is_final=is_final)[0]

    def n_best(self, scorer: Scorer, state: State, *, is_final: bool) -> list[SearchResult]:
        """All hypotheses, the best first; arguments as `SearchMethod.result`."""
        raise NotImplementedError

    def clear_result(self, scorer: Scorer, state: State, *, keep_history: bool) -> State:
        """The same stream with an empty result; the first pass's best hypothesis goes on alone."""
        return cast(State, self.search.clear_result(scorer, state, keep_history=keep_history))
