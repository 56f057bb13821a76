"""Which token sequence is the most probable, if a frame may emit several tokens?

On every frame the most probable hypothesis is extended, again and again, until `beam` hypotheses
that have done with the frame are better than all that have not. Slow, for comparison.

Invariant: see `search.method`.

Source: A. Graves, Sequence Transduction with Recurrent Neural Networks, arXiv 1211.3711, section
2.4, without its prefix search, as in icefall's beam_search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snowmelt.search.graph_contexts import DecoderTable, context_code
from snowmelt.search.method import (
    SearchResult,
    check_step,
    num_common,
    ranked_per_token,
    skipped_ids,
    token_logprobs,
)
from snowmelt.search.scorer import FloatArray, IntArray, Scorer, initial_context

__all__ = ["BeamSearch", "BeamSearchState"]


class _Hypothesis(NamedTuple):
    log_prob: np.float32
    tokens: tuple[int, ...] = ()
    timestamps: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    num_on_frame: int = 0


# By their tokens, in the order in which they were added.
_Hypotheses = dict[tuple[int, ...], _Hypothesis]


class BeamSearchState(NamedTuple):
    """One stream between two steps.

    Attributes:
        start: context before the first token of every hypothesis.
        hypotheses: what the beam holds.
        num_frames: encoder frames searched so far.
    """

    start: tuple[int, ...]
    hypotheses: tuple[_Hypothesis, ...] = (_Hypothesis(np.float32(0)),)
    num_frames: int = 0


@dataclass(frozen=True)
class BeamSearch:
    """See `search.method.SearchMethod`.

    Attributes:
        beam: hypotheses kept a stream.
        max_sym_per_frame: most tokens one encoder frame may emit; None for any number.
        blank_penalty: subtracted from the logit of blank.
        temperature: logits are divided by it before they become probabilities.
        icefall_compat: as the original: <unk> is emitted.
    """

    beam: int = 4
    max_sym_per_frame: int | None = 5
    blank_penalty: float = 0.0
    temperature: float = 1.0
    icefall_compat: bool = False

    def __post_init__(self) -> None:
        for name, value in (("beam", self.beam), ("max_sym_per_frame", self.max_sym_per_frame)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def init_state(self, scorer: Scorer) -> BeamSearchState:
        """State of a stream that has heard nothing."""
        return BeamSearchState(initial_context(scorer))

    def step(
        self,
        scorer: Scorer,
        encoder_proj: FloatArray,
        lens: IntArray,
        states: Sequence[BeamSearchState],
    ) -> list[BeamSearchState]:
        """Advance N streams, one after the other; see `SearchMethod.step`."""
        check_step(encoder_proj, lens, states)
        table = DecoderTable(scorer)
        new_states = []
        for own_proj, num_frames, state in zip(encoder_proj, lens.tolist(), states, strict=True):
            for t in range(num_frames):
                frame = _Frame(self, scorer, table, own_proj[t], state)
                state = state._replace(
                    hypotheses=frame.advanced(state.hypotheses), num_frames=state.num_frames + 1
                )
            new_states.append(state)
        return new_states

    def n_best(
        self, scorer: Scorer, state: BeamSearchState, *, is_final: bool
    ) -> list[SearchResult]:
        """All hypotheses, the best first; arguments as `SearchMethod.result`."""
        num_stable = num_common([h.tokens for h in state.hypotheses])
        return [
            SearchResult(h.tokens, h.timestamps, h.logprobs, None, float(h.log_prob), num_stable)
            for h in self._ranked(scorer, state)
        ]

    def result(self, scorer: Scorer, state: BeamSearchState, *, is_final: bool) -> SearchResult:
        """The best hypothesis so far; see `SearchMethod.result`."""
        return self.n_best(scorer, state, is_final=is_final)[0]

    def clear_result(
        self, scorer: Scorer, state: BeamSearchState, *, keep_history: bool
    ) -> BeamSearchState:
        """The same stream with an empty result; the best hypothesis goes on alone."""
        start = initial_context(scorer)
        if keep_history:
            start = _context(state.start, self._ranked(scorer, state)[0].tokens)
        return BeamSearchState(start, num_frames=state.num_frames)

    def _ranked(self, scorer: Scorer, state: BeamSearchState) -> list[_Hypothesis]:
        log_probs = np.array([h.log_prob for h in state.hypotheses])
        lens = np.array([len(h.tokens) for h in state.hypotheses])
        order = ranked_per_token(log_probs, lens, scorer.context_size)
        return [state.hypotheses[k] for k in order]


class _Frame:
    """One stream's search on one encoder frame."""

    def __init__(
        self,
        search: BeamSearch,
        scorer: Scorer,
        table: DecoderTable,
        encoder_proj: FloatArray,
        state: BeamSearchState,
    ) -> None:
        self._search = search
        self._scorer = scorer
        self._table = table
        self._encoder_proj = encoder_proj[None]
        self._start = state.start
        self._time = state.num_frames
        self._skipped = set(skipped_ids(scorer, icefall_compat=search.icefall_compat).tolist())
        self._known: dict[tuple[int, ...], FloatArray] = {}

    def advanced(self, hypotheses: Sequence[_Hypothesis]) -> tuple[_Hypothesis, ...]:
        """The beam after the frame."""
        search = self._search
        waiting: _Hypotheses = {h.tokens: h._replace(num_on_frame=0) for h in hypotheses}
        done: _Hypotheses = {}
        while waiting:
            best = waiting.pop(max(waiting, key=lambda tokens: waiting[tokens].log_prob))
            logprobs = self._logprobs(best.tokens)
            blank = logprobs[self._scorer.blank_id]
            _add(done, best._replace(log_prob=best.log_prob + blank))
            limit = search.max_sym_per_frame
            if limit is None or best.num_on_frame < limit:
                for token in np.argsort(-logprobs, kind="stable")[: search.beam + 1].tolist():
                    if token not in self._skipped:
                        _add(waiting, self._extended(best, token, logprobs[token]))
            least = max((h.log_prob for h in waiting.values()), default=-np.inf)
            finished = [h for h in done.values() if h.log_prob > least]
            if len(finished) >= search.beam:
                break
        else:
            finished = list(done.values())
        return tuple(sorted(finished, key=lambda h: -h.log_prob)[: search.beam])

    def _extended(self, h: _Hypothesis, token: int, logprob: np.float32) -> _Hypothesis:
        return _Hypothesis(
            h.log_prob + logprob,
            h.tokens + (token,),
            h.timestamps + (self._time,),
            h.logprobs + (float(logprob),),
            h.num_on_frame + 1,
        )

    def _logprobs(self, tokens: tuple[int, ...]) -> FloatArray:
        """(V,) of the token after these."""
        if tokens not in self._known:
            code = context_code(_context(self._start, tokens))
            self._known[tokens] = token_logprobs(
                self._scorer,
                self._encoder_proj,
                self._table.decoder_proj(self._table.rows(np.array([code]))),
                blank_penalty=self._search.blank_penalty,
                temperature=self._search.temperature,
            )[0]
        return self._known[tokens]


def _add(hypotheses: _Hypotheses, new: _Hypothesis) -> None:
    """One that is there already gets the new one's probability and stays as it is otherwise."""
    old = hypotheses.get(new.tokens)
    if old is not None:
        new = old._replace(log_prob=np.logaddexp(old.log_prob, new.log_prob))
    hypotheses[new.tokens] = new


def _context(start: tuple[int, ...], tokens: tuple[int, ...]) -> tuple[int, ...]:
    """The last tokens, as many as `start` has."""
    return (start + tokens[-len(start) :])[-len(start) :]
