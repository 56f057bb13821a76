"""Is one result better than the other, or just luckier?

    bootstrap       how the error rates, and their difference, spread over test sets that are drawn
                    from this one, utterance by utterance or speaker by speaker
    matched pairs   whether errors of the two differ in stretches of speech that are so far apart
                    that errors in one do not bring about errors in the other

Invariant: pure functions; the draws are always the same ones.

Source: M. Bisani and H. Ney, Bootstrap estimates for confidence intervals in ASR performance
evaluation, ICASSP 2004; L. Gillick and S. Cox, Some statistical issues in the comparison of speech
recognition algorithms, ICASSP 1989 (as NIST's sc_stats: segments end at two correct words).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.text.wer import align

__all__ = ["Bootstrap", "Interval", "MatchedPairs", "bootstrap", "matched_pairs", "segment_errors"]

_Array = npt.NDArray[Any]

_NUM_DRAWS: Final = 10_000
_SEED: Final = 42
# Sets drawn at once: 100 MB for LibriSpeech's test sets.
_BLOCK: Final = 1_000

# So many words that both have right part two segments.
_GOOD_WORDS: Final = 2


class Interval(NamedTuple):
    """Between these lie 95 % of the draws; per cent of the words."""

    low: float
    high: float


class Bootstrap(NamedTuple):
    """What draws from a test set say.

    Attributes:
        num_units: utterances or speakers that were drawn from.
        wer_a: of the first result.
        wer_b: of the second.
        difference: of the second minus the first, in points.
        p_value: two-sided: how often a difference of no or the other sign is drawn, doubled.
    """

    num_units: int
    wer_a: Interval
    wer_b: Interval
    difference: Interval
    p_value: float


class MatchedPairs(NamedTuple):
    """The matched pairs test.

    Attributes:
        num_segments: stretches in which at least one of the two has errors.
        z: difference (second minus first) of the errors in a segment, over its standard error;
            None if it cannot be told.
        p_value: two-sided, of a normal distribution, which is rough for less than about 50
            segments; None as z.
    """

    num_segments: int
    z: float | None
    p_value: float | None


def bootstrap(errors_a: _Array, errors_b: _Array, num_words: _Array) -> Bootstrap:
    """Draw test sets of as many units.

    Args:
        errors_a: (U,) word errors of the first result in each unit.
        errors_b: (U,) of the second.
        num_words: (U,) reference words, not all 0.
    """
    counts = np.stack([errors_a, errors_b, num_words]).astype(np.int64)
    num_units = counts.shape[1]
    rng = np.random.default_rng(_SEED)
    draws = []
    for _ in range(_NUM_DRAWS // _BLOCK):
        places = rng.integers(num_units, size=(_BLOCK, num_units))
        draws.append(counts[:, places].sum(axis=2))
    errors_of_a, errors_of_b, words = np.concatenate(draws, axis=1)
    words = np.maximum(words, 1)
    wer_a, wer_b = 100.0 * errors_of_a / words, 100.0 * errors_of_b / words
    difference = wer_b - wer_a
    rarer = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
    return Bootstrap(
        num_units,
        _interval(wer_a),
        _interval(wer_b),
        _interval(difference),
        # Draws cannot tell a chance below one in their number.
        min(1.0, 2.0 * (rarer + 1) / (_NUM_DRAWS + 1)),
    )


def matched_pairs(pairs: Sequence[tuple[int, int]]) -> MatchedPairs:
    """Test whether two results differ.

    Args:
        pairs: errors of the first and the second result in each segment; see `segment_errors`.
    """
    differences = np.array([b - a for a, b in pairs], dtype=np.float64)
    count = len(differences)
    if not differences.any():
        return MatchedPairs(count, 0.0, 1.0)
    deviation = float(differences.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0.0:
        return MatchedPairs(count, None, None)
    z = float(differences.mean()) / (deviation / math.sqrt(count))
    return MatchedPairs(count, z, math.erfc(abs(z) / math.sqrt(2.0)))


def segment_errors(
    ref: Sequence[str], hyp_a: Sequence[str], hyp_b: Sequence[str]
) -> list[tuple[int, int]]:
    """Errors of two results in the segments of an utterance that hold any.

    A segment ends where both have two words right one after the other, or with the utterance.
    """
    segments: list[tuple[int, int]] = []
    is_open, num_good = False, 0
    for is_word, errors_a, errors_b in _places(ref, hyp_a, hyp_b):
        if errors_a or errors_b:
            if is_open:
                before_a, before_b = segments.pop()
                errors_a, errors_b = before_a + errors_a, before_b + errors_b
            segments.append((errors_a, errors_b))
            is_open, num_good = True, 0
        elif is_word:
            num_good += 1
            is_open = is_open and num_good < _GOOD_WORDS
    return segments


def _places(
    ref: Sequence[str], hyp_a: Sequence[str], hyp_b: Sequence[str]
) -> Iterable[tuple[bool, int, int]]:
    """(is a word, errors of A, errors of B) of gap 0, word 0, gap 1, ..., the last gap."""
    inserted_a, wrong_a = _by_place(ref, hyp_a)
    inserted_b, wrong_b = _by_place(ref, hyp_b)
    for i in range(len(ref)):
        yield False, inserted_a[i], inserted_b[i]
        yield True, wrong_a[i], wrong_b[i]
    yield False, inserted_a[-1], inserted_b[-1]


def _by_place(ref: Sequence[str], hyp: Sequence[str]) -> tuple[list[int], list[int]]:
    """Words inserted in each gap, and whether each word is wrong."""
    inserted, wrong = [0], []
    for said, heard in align(ref, hyp):
        if said is None:
            inserted[-1] += 1
        else:
            wrong.append(int(said != heard))
            inserted.append(0)
    return inserted, wrong


def _interval(values: _Array) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(float(low), float(high))
