"""Which transducer gives a sequence of words (or tokens) the score of an n-gram model?

Invariant: one state per history, in the order of the model's n-grams; state 0 is the empty history;
the start is the history `<s>`, if the model has it. From every other state a backoff arc
(`#0` in, nothing out) leads to the longest shorter history there is. Ends of sentences are final
scores, not arcs.

Source: kaldilm, whose state numbers and arcs this reproduces (Kaldi's arpa2fst).
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.text.arpa import ArpaModel
from snowmelt.text.symbols import BACKOFF, BOS, EOS, EPSILON, SymbolTable
from snowmelt.text.transducer import Transducer, transducer_from_arcs

__all__ = ["grammar_from_arpa"]

_LN_10: Final = math.log(10.0)

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_Float64 = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

_log = logging.getLogger(__name__)


def grammar_from_arpa(model: ArpaModel, symbols: SymbolTable) -> Transducer:
    """The model as a transducer over the ids of `symbols` (G).

    N-grams with a word that `symbols` lacks, or with `<s>` or `</s>` inside, are left out with one
    warning; the probabilities of the others stay as they are.

    Args:
        model: of any order.
        symbols: words.txt for words, tokens.txt for tokens; needs `#0`, but neither `<s>` nor
            `</s>`.

    Returns:
        arcs sorted by label.

    Raises:
        DataError: no n-gram is left.
    """
    return _Builder(model, symbols).build()


@dataclass
class _Arcs:
    """Columns that grow: pieces of arrays, joined at the end."""

    src: list[_Int64] = field(default_factory=list)
    dst: list[_Int64] = field(default_factory=list)
    labels: list[_Int64] = field(default_factory=list)
    scores: list[_Float64] = field(default_factory=list)

    def add(self, src: _Int64, dst: _Int64, labels: _Int64, scores: _Float64) -> None:
        self.src.append(src)
        self.dst.append(dst)
        self.labels.append(labels)
        self.scores.append(scores)


class _Builder:
    def __init__(self, model: ArpaModel, symbols: SymbolTable) -> None:
        self.model = model
        self.backoff_id = symbols[BACKOFF]
        # Label of a word by its number; -1: not in the table.
        special = {EPSILON, BACKOFF}
        labels = [symbols.get(word) if word not in special else None for word in model.words]
        self.labels = np.array([-1 if label is None else label for label in labels])
        numbers = {word: i for i, word in enumerate(model.words)}
        self.bos = numbers.get(BOS, -1)
        self.eos = numbers.get(EOS, -1)
        self.labels[[i for i in (self.bos, self.eos) if i >= 0]] = 0

        self.states: list[_Int64] = []  # of each order below the highest: state of a row, or -1
        self.num_states = 1
        self.start = 0
        self.arcs = _Arcs()
        self.final_states: list[_Int64] = []
        self.final_scores: list[_Float64] = []

    def build(self) -> Transducer:
        num_left_out = 0
        for order, table in enumerate(self.model.tables, start=1):
            log_probs = table.log10_probs * _LN_10
            is_usable = self._is_usable(table.ids)
            src = self._histories(table.ids)
            if order < self.model.order:
                is_usable &= src >= 0
                dst = self._new_states(table.ids, table.log10_backoffs, is_usable)
            else:
                src, dst, is_usable = self._shorter_histories(table.ids, src, is_usable)
            num_left_out += int((~is_usable).sum())
            last = table.ids[:, -1]
            ends = is_usable & (last == self.eos)
            self.final_states.append(src[ends])
            self.final_scores.append(log_probs[ends])
            if order == 1 and self.bos >= 0:
                self.start = int(dst[last == self.bos].max(initial=0))
            steps = is_usable & (last != self.eos) & (last != self.bos)
            self.arcs.add(src[steps], dst[steps], self.labels[last[steps]], log_probs[steps])
        if num_left_out:
            _log.warning(
                "%d n-grams are left out: a word is not in the word table, or stands where it "
                "cannot",
                num_left_out,
            )
        return self._graph()

    def _is_usable(self, ids: _Int32) -> _Bool:
        usable: _Bool = (
            (self.labels[ids] >= 0).all(axis=1)
            & (ids[:, 1:] != self.bos).all(axis=1)
            & (ids[:, :-1] != self.eos).all(axis=1)
        )
        return usable

    def _histories(self, ids: _Int32) -> _Int64:
        """State of all words but the last; -1: none."""
        if ids.shape[1] == 1:
            return np.zeros(len(ids), dtype=np.int64)
        return self._states_of(ids[:, :-1])

    def _states_of(self, ids: _Int32) -> _Int64:
        rows = self.model.rows(ids)
        return np.where(rows >= 0, self.states[ids.shape[1] - 1][rows], -1)

    def _new_states(self, ids: _Int32, log10_backoffs: _Float64, is_usable: _Bool) -> _Int64:
        """A new state for every n-gram that may be a history, with its backoff arc."""
        is_history = is_usable & (ids[:, -1] != self.eos)
        num_new = int(is_history.sum())
        states = np.full(len(ids), -1, dtype=np.int64)
        states[is_history] = self.num_states + np.arange(num_new)
        self.num_states += num_new
        self.states.append(states)
        scores = np.nan_to_num(log10_backoffs[is_history]) * _LN_10
        self._add_backoffs(states[is_history], ids[is_history], scores)
        return states

    def _add_backoffs(self, states: _Int64, ids: _Int32, scores: _Float64) -> None:
        """Backoff arcs from the states of histories `ids` to the longest shorter ones."""
        dst = np.zeros(len(ids), dtype=np.int64)
        # From short to long: the longest that exists is written last.
        for length in range(1, ids.shape[1]):
            shorter = self._states_of(ids[:, -length:])
            dst = np.where(shorter >= 0, shorter, dst)
        self.arcs.add(states, dst, np.full(len(ids), self.backoff_id), scores)

    def _shorter_histories(
        self, ids: _Int32, src: _Int64, is_usable: _Bool
    ) -> tuple[_Int64, _Int64, _Bool]:
        """Sources and destinations of the highest order, and which n-grams have both."""
        if ids.shape[1] == 1:
            return src, np.zeros(len(ids), dtype=np.int64), is_usable
        dst = self._states_of(ids[:, 1:])
        # A model may lack the history that an n-gram leads to: it is made, in the order of the
        # file, and later n-grams may begin there. Rare, so row by row.
        made: dict[tuple[int, ...], int] = {}
        is_step = is_usable & (ids[:, -1] != self.eos)
        src, is_usable = src.copy(), is_usable.copy()
        for row in np.flatnonzero(is_usable & ((src < 0) | (is_step & (dst < 0)))).tolist():
            words = tuple(ids[row].tolist())
            if src[row] < 0:
                src[row] = made.get(words[:-1], -1)
                is_usable[row] = src[row] >= 0
            if is_usable[row] and is_step[row] and dst[row] < 0:
                if words[1:] not in made:
                    made[words[1:]] = self.num_states
                    state = np.array([self.num_states])
                    self.num_states += 1
                    self._add_backoffs(state, ids[row : row + 1, 1:], np.zeros(1))
                dst[row] = made[words[1:]]
        return src, dst, is_usable

    def _graph(self) -> Transducer:
        final_scores = np.full(self.num_states, -np.inf)
        for states, scores in zip(self.final_states, self.final_scores, strict=True):
            final_scores[states] = scores
        src, dst, labels = (
            np.concatenate(column) for column in (self.arcs.src, self.arcs.dst, self.arcs.labels)
        )
        if not len(src):
            raise DataError(
                "no n-gram of the model can be used with this word table",
                "make both from the same words, in the same spelling (upper or lower case)",
            )
        order = np.lexsort((labels, src))
        labels = labels[order]
        outputs = np.where(labels == self.backoff_id, 0, labels)
        scores = np.concatenate(self.arcs.scores)[order]
        return transducer_from_arcs(
            self.start, src[order], dst[order], labels, outputs, scores, final_scores
        )
