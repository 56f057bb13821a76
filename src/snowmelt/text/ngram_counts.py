"""How often does every run of n words occur in a text, and after how many different words?

Invariant: a sentence is `<s> w1 ... wn </s>`; no run crosses its ends. The runs of one order stand
grouped by their history (all words but the last), histories and runs in the order in which the
text has them first. Numbers of words are the places of the 1-grams.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.text.symbols import BOS, EOS

__all__ = ["NgramCounts", "OrderCounts", "count_ngrams", "split_words"]

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrderCounts:
    """The M distinct runs of one length.

    Attributes:
        ids: (M, order) int32, numbers of their words.
        histories: (M,) int64, place of all words but the last in the order below; 0 for 1-grams.
        suffixes: (M,) int64, place of all words but the first in the order below; 0 for 1-grams.
        counts: (M,) int64, how often they occur.
        left_contexts: (M,) int64, how many different words stand before them (`<s>` is one);
            of the highest order 0, for nobody asks.
    """

    ids: _Int32
    histories: _Int64
    suffixes: _Int64
    counts: _Int64
    left_contexts: _Int64


@dataclass(frozen=True, eq=False)
class NgramCounts:
    """Counts of all orders.

    Attributes:
        words: number of a word -> the word; `<s>` is 0.
        orders: of length 1, 2, ...
    """

    words: Sequence[str]
    orders: Sequence[OrderCounts]


def count_ngrams(sentences: Iterable[str], order: int) -> NgramCounts:
    """Count the runs of up to `order` words.

    Args:
        sentences: one line each, fields separated by blanks or tabs; an empty line is the empty
            sentence.
        order: at least 1.

    Raises:
        DataError: no sentence, or a sentence that holds `<s>` or `</s>`.
    """
    if order < 1:
        raise DataError(f"the order of an n-gram model must be 1 or more, got {order}")
    words, text, places = _numbered(sentences)
    orders: list[OrderCounts] = []
    # Place of the run of the order below that ends here; of the empty run 0.
    ends = np.zeros(len(text), dtype=np.int64)
    for length in range(1, order + 1):
        at = np.flatnonzero(places >= length - 1)
        # Before the first word lies no run: the empty one is put there.
        histories = ends[at - 1] if length > 1 else np.zeros(len(at), dtype=np.int64)
        suffixes = ends[at]
        counted, run_at = _count(histories, suffixes, text[at], len(words), orders)
        orders.append(counted)
        ends = np.full(len(text), -1, dtype=np.int64)
        ends[at] = run_at
    for below, above in pairwise(orders):
        below.left_contexts[:] = np.bincount(above.suffixes, minlength=len(below.ids))
    return NgramCounts(words, orders)


def split_words(line: str) -> list[str]:
    """The words of a line, which blanks and tabs separate; other white space is part of a word."""
    return [word for word in line.rstrip("\r\n").replace("\t", " ").split(" ") if word]


def _numbered(sentences: Iterable[str]) -> tuple[list[str], _Int64, _Int64]:
    """The words, the text as their numbers, and each one's place in its sentence."""
    numbers = {BOS: 0}
    text: list[_Int32] = []
    for number, sentence in enumerate(sentences, start=1):
        words = [BOS, *split_words(sentence), EOS]
        if BOS in words[1:] or EOS in words[:-1]:
            raise DataError(f"sentence {number} holds {BOS} or {EOS}", "give sentences without")
        text.append(np.array([numbers.setdefault(w, len(numbers)) for w in words], dtype=np.int32))
    if not text:
        raise DataError("there is no text to estimate an n-gram model from")
    lens = np.array([len(words) for words in text])
    begins = np.repeat(np.cumsum(lens) - lens, lens)
    joined = np.concatenate(text).astype(np.int64)
    return list(numbers), joined, np.arange(len(joined)) - begins


def _count(
    histories: _Int64, suffixes: _Int64, last: _Int64, num_words: int, below: list[OrderCounts]
) -> tuple[OrderCounts, _Int64]:
    """Count runs given by history and last word; also the place of each in the result."""
    _, first, inverse, counts = np.unique(
        histories * num_words + last, return_index=True, return_inverse=True, return_counts=True
    )
    distinct_histories = histories[first]
    history_first = np.full(int(histories.max(initial=-1)) + 1, len(last), dtype=np.int64)
    np.minimum.at(history_first, distinct_histories, first)
    order = np.lexsort((first, history_first[distinct_histories]))
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[order] = np.arange(len(order))
    first = first[order]
    ids = last[first, None].astype(np.int32)
    if below:
        ids = np.concatenate([below[-1].ids[histories[first]], ids], axis=1)
    counted = OrderCounts(
        ids=ids,
        histories=histories[first],
        suffixes=suffixes[first],
        counts=counts[order],
        left_contexts=np.zeros(len(first), dtype=np.int64),
    )
    return counted, place_of[inverse]
