"""Which n-gram model does icefall's recipe estimate from a text of tokens? Kneser-Ney with backoff.

One discount per order, listed n-grams are not interpolated with lower orders. The discounts come
from the raw counts, before continuation counts are formed (SRILM: -kn-modify-counts-at-end
-ukndiscount).

Invariant: every printed digit is that of the original program.

Source: icefall, icefall/shared/make_kn_lm.py; Kneser and Ney, Improved backing-off for m-gram
language modeling (1995).
"""

import logging
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.text.arpa import ArpaModel, NgramTable
from snowmelt.text.ngram_counts import NgramCounts, OrderCounts, count_ngrams
from snowmelt.text.symbols import EOS

__all__ = ["estimate_kneser_ney"]

_SMALLEST: Final = 1e-99  # what log10 of 0 is taken from

# Probabilities that sum to 1 may come out a little below. The original then divides by what is
# left, which gives weights of 10^15; here it is 1.
_ROUNDING: Final = 1e-12

_Float64 = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)


def estimate_kneser_ney(sentences: Iterable[str], order: int) -> ArpaModel:
    """Estimate a Kneser-Ney model with backoff.

    Args:
        sentences: one line each; tokens separated by blanks or tabs.
        order: at least 1.

    Returns:
        n-grams in the order in which the text has them first, grouped by history.

    Raises:
        DataError: there is no text.
    """
    counts = count_ngrams(sentences, order)
    probs = [_probabilities(counts, length) for length in range(1, order + 1)]
    tables = []
    for length, (counted, p) in enumerate(zip(counts.orders, probs, strict=True), start=1):
        backoffs = np.full(len(p), np.nan)
        if length < order:
            above = counts.orders[length]
            lower = probs[length - 1][above.suffixes]
            backoffs = _backoffs(above, probs[length], lower, len(p))
            backoffs[counted.ids[:, -1] == counts.words.index(EOS)] = np.nan
        tables.append(NgramTable(counted.ids, _log10(p), backoffs))
    return ArpaModel(counts.words, tables)


def _probabilities(counts: NgramCounts, length: int) -> _Float64:
    """f(z | h) of every n-gram of this length."""
    counted = counts.orders[length - 1]
    discount = _discount(counted, length)
    num_histories = int(counted.histories.max(initial=-1)) + 1
    raw = counted.counts
    if length == 1:
        # <s> follows nothing. (The original gives it a share in models of order 1.)
        raw = raw.copy()
        raw[0] = 0
    raw_totals = np.bincount(counted.histories, raw, num_histories)
    if length == len(counts.orders):
        is_raw = np.ones(len(counted.counts), dtype=bool)
        totals = raw_totals[counted.histories]
    else:
        continuations = np.bincount(counted.histories, counted.left_contexts, num_histories)
        # Nothing ever stands before a history that begins with <s>.
        is_raw = continuations[counted.histories] == 0
        totals = np.where(is_raw, raw_totals[counted.histories], continuations[counted.histories])
    numbers = np.where(is_raw, raw, counted.left_contexts)
    f: _Float64 = np.maximum(numbers - discount, 0.0) / totals
    return f


def _discount(counted: OrderCounts, length: int) -> float:
    if length == 1:
        return 0.0
    n1, n2 = (int((counted.counts == count).sum()) for count in (1, 2))
    if n1 + 2 * n2 == 0:
        _log.warning(
            "no %d-gram occurs once or twice: is the text too small? Its discount is set to 0.5",
            length,
        )
        return 0.5
    return max(0.1, n1) / (n1 + 2 * n2)


def _backoffs(above: OrderCounts, p: _Float64, lower: _Float64, num_histories: int) -> _Float64:
    """log10 of the weights of histories, NaN where none is written."""
    # bincount adds one after the other: the same rounding as a loop over the n-grams.
    left = 1.0 - np.bincount(above.histories, p, num_histories)
    lower_sums = np.bincount(above.histories, lower, num_histories)
    has_weight = (np.bincount(above.histories, minlength=num_histories) > 0) & (
        lower_sums < 1.0 - _ROUNDING
    )
    backoffs = np.full(num_histories, np.nan)
    backoffs[has_weight] = _log10(left[has_weight] / (1.0 - lower_sums[has_weight]))
    return backoffs


def _log10(values: _Float64) -> _Float64:
    return np.log10(np.maximum(values, _SMALLEST))
