"""Which n-gram model of words is best estimated from a text? Interpolated modified Kneser-Ney.

Three discounts per order (for n-grams seen once, twice, more often), taken from the counts that
are discounted; every probability is interpolated with the order below, the lowest with the uniform
distribution over the vocabulary.

Invariant: for every history the probabilities of all words and `</s>` sum to 1.

Source: Chen and Goodman, An empirical study of smoothing techniques for language modeling (1998),
section 3; Heafield et al., Scalable modified Kneser-Ney language model estimation (2013).
"""

import logging
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.text.arpa import ArpaModel, NgramTable
from snowmelt.text.lexicon import UNKNOWN_WORD
from snowmelt.text.ngram_counts import NgramCounts, count_ngrams, split_words
from snowmelt.text.symbols import BOS, EOS

__all__ = ["estimate_modified_kneser_ney"]

# Where a text is too small to tell: those of KenLM's --discount_fallback.
_FALLBACK: Final = (0.5, 1.0, 1.5)

_LOG10_ZERO: Final = -99.0

_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


def estimate_modified_kneser_ney(
    sentences: Iterable[str], order: int, vocabulary: Iterable[str] | None = None
) -> ArpaModel:
    """Estimate an interpolated modified Kneser-Ney model.

    Args:
        sentences: one line each; words separated by blanks or tabs.
        order: at least 1.
        vocabulary: the words the model knows. Others in the text count as `<UNK>`; those the text
            lacks get the probability of a word never seen. None: the words of the text.

    Returns:
        n-grams grouped by history; `<UNK>` is always a word of the model.

    Raises:
        DataError: there is no text.
    """
    known = None if vocabulary is None else frozenset(vocabulary)
    if known is not None:
        sentences = (
            " ".join(w if w in known else UNKNOWN_WORD for w in split_words(sentence))
            for sentence in sentences
        )
    counts = count_ngrams(sentences, order)
    seen = frozenset(counts.words)
    unseen = sorted((frozenset([UNKNOWN_WORD]) | (known or frozenset())) - seen - {BOS, EOS})
    words = [*counts.words, *unseen]

    tables: list[NgramTable] = []
    # What is left of a history, and the probabilities of the order below.
    rest = np.ones(1)
    lower = np.full(1, 1.0 / (len(words) - 1))  # <s> never follows
    for length, counted in enumerate(counts.orders, start=1):
        adjusted = _adjusted_counts(counts, length)
        discounts = _discounts(adjusted, length)[np.minimum(adjusted, 3)]
        num_histories = len(tables[-1].ids) if length > 1 else 1
        totals = np.bincount(counted.histories, adjusted, num_histories)
        taken = np.bincount(counted.histories, discounts, num_histories)
        has_followers = totals > 0
        rest = np.divide(taken, totals, out=np.ones(num_histories), where=has_followers)
        probs = (adjusted - discounts) / totals[counted.histories]
        probs += rest[counted.histories] * lower[counted.suffixes]
        if length > 1:
            # A history that nothing follows has no weight.
            below = tables[-1]
            below.log10_backoffs[has_followers] = np.log10(rest[has_followers])
        ids = counted.ids
        if length == 1:
            ids = np.concatenate([ids, np.arange(len(seen), len(words), dtype=np.int32)[:, None]])
            probs = np.concatenate([probs, np.full(len(unseen), rest[0] * lower[0])])
            probs[0] = 0.0
        log10_probs = np.log10(probs, out=np.full(len(probs), _LOG10_ZERO), where=probs > 0)
        tables.append(NgramTable(ids, log10_probs, np.full(len(ids), np.nan)))
        lower = probs
    return ArpaModel(words, tables)


def _adjusted_counts(counts: NgramCounts, length: int) -> _Int64:
    """Raw counts of the highest order and behind `<s>`, else numbers of different words before."""
    counted = counts.orders[length - 1]
    is_raw = counted.ids[:, 0] == 0
    if length == len(counts.orders):
        is_raw = np.ones_like(is_raw)
    adjusted = np.where(is_raw, counted.counts, counted.left_contexts)
    if length == 1:
        adjusted[0] = 0  # <s> follows nothing
    return adjusted


def _discounts(adjusted: _Int64, length: int) -> _Float64:
    """Discounts of the counts 0, 1, 2 and 3 or more."""
    n1, n2, n3, n4 = (int((adjusted == count).sum()) for count in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount <= count for count, discount in enumerate(found, start=1)):
            return np.array([0.0, *found])
    _log.warning(
        "the counts of %d-grams are too few for discounts of their own: %s are taken",
        length,
        ", ".join(str(discount) for discount in _FALLBACK),
    )
    return np.array([0.0, *_FALLBACK])
