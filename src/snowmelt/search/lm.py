"""What does a search ask of a language model of tokens? State in, scores of the next token out.

A state stands for the tokens so far. Whatever made the model, a search sees these four methods, in
batches; n-gram models are here, and sums of several models with a scale each.

Invariant: scores are natural logs and finite; a model has no state of its own that a score could
depend on, and states handed in stay as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from snowmelt.search.scorer import FloatArray, IntArray
from snowmelt.text.ngram import NgramLm, NgramState

__all__ = ["LanguageModel", "NgramScorer", "WeightedLms", "sentence_scores"]

State = TypeVar("State")


class LanguageModel(Protocol[State]):
    """A language model over the ids of the transducer; `State` is opaque to everybody else."""

    @property
    def vocab_size(self) -> int:
        """V, that of the transducer."""

    def start(self) -> State:
        """State before the first token."""

    def advance(self, states: Sequence[State], token_ids: IntArray) -> list[State]:
        """States after one more token.

        Args:
            states: M states.
            token_ids: (M,) int64, one for each; never blank.
        """

    def scores(self, states: Sequence[State]) -> FloatArray:
        """(M, V) natural logs of the next token's score, a new array; finite."""

    def final_scores(self, states: Sequence[State]) -> FloatArray:
        """(M,) natural logs of the score of the sentence's end; finite."""


class NgramScorer:
    """An n-gram model of tokens as a `LanguageModel`.

    A token that the model does not list, and an end that it does not know, would make a hypothesis
    impossible (or, with a negative scale, certain). They score like the least probable of those it
    lists after no history, and the history is empty after them.

    Args:
        lm: with the rule `all_paths` for the original's numbers, `arpa` for probabilities.
        vocab_size: V.

    Raises:
        ValueError: the model lists no token below V after no history.
    """

    def __init__(self, lm: NgramLm, vocab_size: int) -> None:
        self._lm = lm
        self._vocab_size = vocab_size
        row = lm.next_scores(lm.empty_history, vocab_size)
        if not np.isfinite(row).any():
            raise ValueError(f"the n-gram model lists no token id below {vocab_size}")
        self._lowest = row[np.isfinite(row)].min()

    @property
    def vocab_size(self) -> int:
        """See `LanguageModel`."""
        return self._vocab_size

    def start(self) -> NgramState:
        """See `LanguageModel`."""
        return self._lm.start

    def advance(self, states: Sequence[NgramState], token_ids: IntArray) -> list[NgramState]:
        """See `LanguageModel`."""
        return [
            self._lm.step(state, token)[1] or self._lm.empty_history
            for state, token in zip(states, token_ids.tolist(), strict=True)
        ]

    def scores(self, states: Sequence[NgramState]) -> FloatArray:
        """See `LanguageModel`."""
        rows = np.empty((len(states), self._vocab_size), np.float32)
        for row, state in zip(rows, states, strict=True):
            row[:] = self._lm.next_scores(state, self._vocab_size)
        rows[np.isneginf(rows)] = self._lowest
        return rows

    def final_scores(self, states: Sequence[NgramState]) -> FloatArray:
        """See `LanguageModel`."""
        found = np.array([self._lm.final_score(state) for state in states], np.float32)
        found[np.isneginf(found)] = self._lowest
        return found


@dataclass(frozen=True)
class WeightedLms:
    """The sum of models, each times its scale: itself a `LanguageModel`.

    A negative scale takes a model away: what the transducer has learnt of the language already
    (low-order density ratio, LODR).

    Attributes:
        parts: (model, scale), one or more, all of the same vocabulary size.

    Source: Zheng et al., An Empirical Study of Language Model Integration for Transducer based
    Speech Recognition, 2022.
    """

    parts: tuple[tuple[LanguageModel[Any], float], ...]

    def __post_init__(self) -> None:
        sizes = {lm.vocab_size for lm, _ in self.parts}
        if len(sizes) != 1:
            raise ValueError(f"models of one vocabulary size are needed, got {sorted(sizes)}")

    @property
    def vocab_size(self) -> int:
        """See `LanguageModel`."""
        return self.parts[0][0].vocab_size

    def start(self) -> tuple[Any, ...]:
        """See `LanguageModel`; a state is one of each part."""
        return tuple(lm.start() for lm, _ in self.parts)

    def advance(
        self, states: Sequence[tuple[Any, ...]], token_ids: IntArray
    ) -> list[tuple[Any, ...]]:
        """See `LanguageModel`."""
        columns = [
            lm.advance([state[i] for state in states], token_ids)
            for i, (lm, _) in enumerate(self.parts)
        ]
        return list(zip(*columns, strict=True))

    def scores(self, states: Sequence[tuple[Any, ...]]) -> FloatArray:
        """See `LanguageModel`."""
        parts = [
            scale * lm.scores([state[i] for state in states])
            for i, (lm, scale) in enumerate(self.parts)
        ]
        total: FloatArray = np.sum(parts, axis=0)
        return total

    def final_scores(self, states: Sequence[tuple[Any, ...]]) -> FloatArray:
        """See `LanguageModel`."""
        parts = [
            scale * lm.final_scores([state[i] for state in states])
            for i, (lm, scale) in enumerate(self.parts)
        ]
        total: FloatArray = np.sum(parts, axis=0)
        return total


def sentence_scores(
    lm: LanguageModel[Any], sentences: Sequence[tuple[int, ...]]
) -> npt.NDArray[np.float64]:
    """(M,) natural logs of the scores of whole sentences, their ends included.

    Args:
        lm: the model.
        sentences: M token sequences; all are scored side by side.
    """
    totals = np.zeros(len(sentences))
    states = [lm.start() for _ in sentences]
    for place in range(max(map(len, sentences), default=0)):
        rows = [m for m, tokens in enumerate(sentences) if place < len(tokens)]
        tokens = np.array([sentences[m][place] for m in rows], dtype=np.int64)
        own = [states[m] for m in rows]
        totals[rows] += lm.scores(own)[np.arange(len(rows)), tokens]
        for m, state in zip(rows, lm.advance(own, tokens), strict=True):
            states[m] = state
    if sentences:
        totals += lm.final_scores(states)
    return totals
