"""Intervals and tests of two results: against formulas, against chance, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.evaluate.significance import bootstrap, matched_pairs, segment_errors
from snowmelt.text.wer import score


def test_intervals_are_those_of_the_binomial():
    """A word an utterance: the number of errors in a draw is binomial."""
    errors_a, errors_b = np.zeros(400, int), np.zeros(400, int)
    errors_a[:80], errors_b[:120] = 1, 1
    drawn = bootstrap(errors_a, errors_b, np.ones(400, int))
    for interval, share in ((drawn.wer_a, 0.2), (drawn.wer_b, 0.3)):
        half = 196.0 * math.sqrt(share * (1 - share) / 400)
        assert interval == pytest.approx((100 * share - half, 100 * share + half), abs=0.3)
    # Paired: where A errs, B errs too. Only the 40 others make a difference.
    half = 196.0 * math.sqrt(0.1 * 0.9 / 400)
    assert drawn.difference == pytest.approx((10 - half, 10 + half), abs=0.3)
    assert drawn.num_units == 400 and drawn.p_value == 2 / 10_001


def test_equal_results_do_not_differ():
    errors = np.array([0, 1, 2, 0])
    drawn = bootstrap(errors, errors, np.array([3, 4, 5, 0]))
    assert drawn.wer_a == drawn.wer_b and drawn.difference == (0.0, 0.0) and drawn.p_value == 1.0


def test_draws_are_always_the_same_and_turn_with_the_results():
    rng = np.random.default_rng(0)
    a, b, words = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.integers(3, 9, 50)
    there, back = bootstrap(a, b, words), bootstrap(b, a, words)
    assert there == bootstrap(a, b, words)
    assert (there.wer_a, there.wer_b, there.p_value) == (back.wer_b, back.wer_a, back.p_value)
    assert there.difference == pytest.approx((-back.difference.high, -back.difference.low))


def test_chance_is_not_mistaken_for_more():
    """Two results that are as good: of 40 pairs about 5 % differ at the level of 5 %."""
    rng = np.random.default_rng(3)
    words = np.full(100, 8)
    found = []
    for _ in range(40):
        a, b = rng.binomial(8, 0.1, (2, 100))
        drawn, pairs = bootstrap(a, b, words), matched_pairs(list(zip(a, b, strict=True)))
        assert pairs.p_value == pytest.approx(drawn.p_value, abs=0.05)
        found.append(drawn.p_value < 0.05)
    assert sum(found) <= 5


def test_matched_pairs_by_hand():
    pairs = matched_pairs([(1, 0), (1, 0), (0, 1), (2, 0)])
    # Differences -1, -1, 1, -2: mean -0.75, variance (0.0625 * 2 + 3.0625 + 1.5625) / 3.
    z = -0.75 / math.sqrt((0.125 + 3.0625 + 1.5625) / 3 / 4)
    assert pairs.num_segments == 4 and pairs.z == pytest.approx(z)
    assert pairs.p_value == pytest.approx(2 * 0.5 * math.erfc(abs(z) / math.sqrt(2)))


def test_what_cannot_be_told():
    assert matched_pairs([]) == (0, 0.0, 1.0) == (0, *matched_pairs([(1, 1)])[1:])
    assert matched_pairs([(1, 0)]) == (1, None, None)
    assert matched_pairs([(1, 0)] * 3) == (3, None, None)


@pytest.mark.parametrize(
    ("ref", "a", "b", "segments"),
    [
        ("A B C", "A B C", "A B C", []),
        ("", "", "", []),
        ("", "X", "", [(1, 0)]),
        ("A B C D", "X B C Y", "A B C D", [(1, 0), (1, 0)]),
        # One good word does not part them, nor two with something put in between.
        ("A B C", "X B Y", "A B C", [(2, 0)]),
        ("A B C D", "X B Z C Y", "A B C D", [(3, 0)]),
        ("A B C D", "X B C D", "A B Z C D", [(1, 1)]),
        # Good is what both have right.
        ("A B C D", "X B C D", "A B C Y", [(1, 0), (0, 1)]),
        ("A B C D", "X B C D", "A Z C D", [(1, 1)]),
        ("A B C D E", "A B C D E", "A B", [(0, 3)]),
        ("A B", "Z A B Z", "A B", [(1, 0), (1, 0)]),
    ],
)
def test_segments(ref, a, b, segments):
    assert segment_errors(ref.split(), a.split(), b.split()) == segments


_WORDS = st.lists(st.sampled_from("ABC"), max_size=8)


@given(_WORDS, _WORDS, _WORDS)
def test_every_error_is_in_one_segment(ref, a, b):
    segments = segment_errors(ref, a, b)
    assert all(pair != (0, 0) for pair in segments)
    assert sum(pair[0] for pair in segments) == score([("u", ref, a)]).errors
    assert sum(pair[1] for pair in segments) == score([("u", ref, b)]).errors
