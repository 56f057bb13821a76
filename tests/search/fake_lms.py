"""Language models small enough to be worked out by hand."""

import itertools
from collections.abc import Sequence

import numpy as np

from snowmelt.search.scorer import FloatArray, IntArray
from snowmelt.text.transducer import Transducer, transducer_from_arcs

BACKOFF_ID = 9


class ToyLm:
    """log_softmax(((a * prev + b * v) mod m) / 2) over V = 6; a state is the last token, first 1.

    The sentence's end is token 1.
    """

    vocab_size = 6

    def __init__(self, a: int, b: int, m: int) -> None:
        logits = np.mod(a * np.arange(6)[:, None] + b * np.arange(6), m) / 2
        self.rows = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
        self.num_advanced = 0

    def start(self) -> int:
        return 1

    def advance(self, states: Sequence[int], token_ids: IntArray) -> list[int]:
        assert len(states) == len(token_ids) and (token_ids > 0).all()
        self.num_advanced += len(states)
        return token_ids.tolist()

    def scores(self, states: Sequence[int]) -> FloatArray:
        return self.rows[list(states)]

    def final_scores(self, states: Sequence[int]) -> FloatArray:
        return self.rows[list(states), 1]


def toy_neural_lm() -> ToyLm:
    return ToyLm(2, 3, 7)


def toy_ngram_lm() -> ToyLm:
    return ToyLm(3, 2, 5)


class HistoryLm:
    """Scores that depend on all tokens so far; any float type."""

    def __init__(self, vocab_size: int, seed: int = 0, dtype: type = np.float32) -> None:
        self.vocab_size = vocab_size
        self._dtype = dtype
        self._seed = seed

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(
        self, states: Sequence[tuple[int, ...]], token_ids: IntArray
    ) -> list[tuple[int, ...]]:
        return [(*state, int(token)) for state, token in zip(states, token_ids, strict=True)]

    def scores(self, states: Sequence[tuple[int, ...]]) -> FloatArray:
        return np.stack([self._row(state)[1:] for state in states])

    def final_scores(self, states: Sequence[tuple[int, ...]]) -> FloatArray:
        return np.array([self._row(state)[0] for state in states], self._dtype)

    def _row(self, state: tuple[int, ...]) -> FloatArray:
        rng = np.random.default_rng([self._seed, *state])
        return rng.normal(-2, 1.5, self.vocab_size + 1).astype(self._dtype)


def bigram() -> Transducer:
    """Tokens 1 to 3; 0 is no history, 4 (where it starts) and 1..3 are those of one token."""
    unigrams = {1: -0.5, 2: -1.5, 3: -2.5}
    bigrams = {(4, 1): -0.2, (1, 2): -0.1, (1, 3): -4.0, (2, 2): -0.7}
    arcs = [(0, token, token, score) for token, score in unigrams.items()]
    arcs += [(history, token, token, score) for (history, token), score in bigrams.items()]
    arcs += [(history, 0, BACKOFF_ID, -0.3) for history in range(1, 5)]
    src, dst, labels, scores = (np.array(column) for column in zip(*arcs, strict=True))
    final = np.array([-1.0, -np.inf, -0.4, -np.inf, -np.inf])
    return transducer_from_arcs(4, src, dst, labels, labels, scores, final)


def all_tokens(vocab_size: int, length: int) -> list[tuple[int, ...]]:
    """All sequences of this many tokens, blank left out."""
    return list(itertools.product(range(1, vocab_size), repeat=length))
