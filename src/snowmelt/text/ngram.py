"""What does an n-gram model say about the next token or word, and about a whole sentence?

Two rules:

- `"arpa"`: the n-gram itself if the model lists it, else the backoff weight times what the shorter
  history says. The probabilities of all next tokens sum to 1.
- `"all_paths"`: the best over all ways to back off, whether the n-gram is listed or not, as
  icefall's search has it; never lower than the ARPA rule, so no distribution. Its state is the
  set of histories that are still in the race.

Invariant: the model is read-only and shared; a state is a small value, equal states have equal
futures.

Source: icefall, icefall/ngram_lm.py (all paths); SRILM, ngram-format(5) (ARPA rule).
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.text.symbols import SymbolTable
from snowmelt.text.transducer import Transducer

__all__ = ["BackoffRule", "NgramLm", "NgramState", "SentenceScore", "score_sentence"]

BackoffRule = Literal["arpa", "all_paths"]

# (history, score relative to the best one), sorted by history; empty: nothing can follow.
NgramState = tuple[tuple[int, float], ...]

_KEPT_ROWS: Final = 4096  # of 500 tokens: 8 MB


class _Way(NamedTuple):
    """A history reached by backing off, and what that costs (natural log)."""

    history: int
    score: float


class NgramLm:
    """An n-gram model, asked token by token.

    Args:
        grammar: `grammar_from_arpa`, or a file of it (`Transducer.read_text`).
        backoff_id: label of the backoff arcs, the id of `#0`.
        rule: how n-grams that are not listed, and those that are, get their score.

    Source: icefall, icefall/ngram_lm.py.
    """

    def __init__(self, grammar: Transducer, backoff_id: int, rule: BackoffRule) -> None:
        order = np.lexsort((grammar.ilabels, grammar.src))
        self._splits = grammar.row_splits
        self._labels = grammar.ilabels[order]
        self._dst = grammar.dst[order]
        self._scores = grammar.scores[order].astype(np.float64)
        self._final_scores = grammar.final_scores.astype(np.float64)
        self._backoff_id = backoff_id
        self._rule = rule
        self._rows: OrderedDict[NgramState, npt.NDArray[np.float32]] = OrderedDict()
        self.start: NgramState = ((grammar.start, 0.0),)
        # State 0 of a grammar is the history of no word, where to go on after an unknown one.
        self.empty_history: NgramState = ((0, 0.0),)

    def step(self, state: NgramState, label: int) -> tuple[float, NgramState]:
        """Take one token.

        Args:
            state: `start`, or what an earlier step gave back.
            label: id of the token, not the backoff's.

        Returns:
            natural log of the token's score after this state, and the state after it. A token the
            model does not know has -inf, and leads to the state (), after which nothing follows:
            go on from `empty_history`.
        """
        best: dict[int, float] = {}
        for way in self._ways(state):
            arc = self._arc(way.history, label)
            if arc is None:
                continue
            dst, score = int(self._dst[arc]), way.score + float(self._scores[arc])
            best[dst] = max(score, best.get(dst, -math.inf))
            if self._rule == "arpa":
                break
        if not best:
            return -math.inf, ()
        total = max(best.values())
        return total, tuple((dst, best[dst] - total) for dst in sorted(best))

    def next_scores(self, state: NgramState, vocab_size: int) -> npt.NDArray[np.float32]:
        """The scores of all tokens at once, as `step` gives them one by one.

        Args:
            state: as for `step`.
            vocab_size: V, the same in every call.

        Returns:
            (V,) float32, read-only; the rows asked for last are kept.
        """
        row = self._rows.get(state)
        if row is None:
            row = self._row(state, vocab_size)
            self._rows[state] = row
            if len(self._rows) > _KEPT_ROWS:
                self._rows.popitem(last=False)
        else:
            self._rows.move_to_end(state)
        return row

    def final_score(self, state: NgramState) -> float:
        """Natural log of the score of the sentence's end after this state."""
        best = -math.inf
        for way in self._ways(state):
            best = max(best, way.score + float(self._final_scores[way.history]))
            if self._rule == "arpa" and best > -math.inf:
                break
        return best

    def _row(self, state: NgramState, vocab_size: int) -> npt.NDArray[np.float32]:
        row = np.full(vocab_size, -np.inf)
        ways = list(self._ways(state))
        # The ARPA rule: the longest history is written last, over the shorter ones.
        for way in reversed(ways):
            begin, end = self._splits[way.history], self._splits[way.history + 1]
            labels = self._labels[begin:end]
            is_token = (labels != self._backoff_id) & (labels < vocab_size)
            labels = labels[is_token]
            scores = way.score + self._scores[begin:end][is_token]
            row[labels] = scores if self._rule == "arpa" else np.maximum(row[labels], scores)
        floats = row.astype(np.float32)
        floats.flags.writeable = False
        return floats

    def _ways(self, state: NgramState) -> list[_Way]:
        """The histories of a state and all that they back off to, long before short."""
        ways = []
        for history, score in state:
            while True:
                ways.append(_Way(history, score))
                arc = self._arc(history, self._backoff_id)
                if arc is None:
                    break
                history, score = int(self._dst[arc]), score + float(self._scores[arc])
        return ways

    def _arc(self, history: int, label: int) -> int | None:
        begin, end = int(self._splits[history]), int(self._splits[history + 1])
        arc = begin + int(np.searchsorted(self._labels[begin:end], label))
        return arc if arc < end and self._labels[arc] == label else None


class SentenceScore(NamedTuple):
    """What a model says of a sentence.

    Attributes:
        log_prob: natural log, the sentence's end included; words without score left out.
        num_scored: how many words (and the end) that is of: perplexity is
            exp(-log_prob / num_scored) over many sentences.
        num_unknown: words that the model, or the table, does not know.
    """

    log_prob: float
    num_scored: int
    num_unknown: int


def score_sentence(lm: NgramLm, words: SymbolTable, sentence: Sequence[str]) -> SentenceScore:
    """Score a sentence, from `<s>` to `</s>`.

    Args:
        lm: with the ARPA rule this is the probability that the ARPA file states.
        words: the table of the model's labels.
        sentence: its words, without `<s>` and `</s>`. After an unknown word the
            history is empty, as in SRILM.
    """
    state, log_prob, num_unknown = lm.start, 0.0, 0
    for word in sentence:
        label = words.get(word)
        score, after = (-math.inf, ()) if label is None else lm.step(state, label)
        if score == -math.inf:
            num_unknown += 1
            state = lm.empty_history
        else:
            log_prob, state = log_prob + score, after
    log_prob += lm.final_score(state)
    return SentenceScore(log_prob, len(sentence) + 1 - num_unknown, num_unknown)
