"""How far times are off: words that were recognised, signs kept in the bias alone."""

from dataclasses import replace

import pytest

from snowmelt.data.alignment import TimedWord
from snowmelt.evaluate.word_times import word_times
from tests.evaluate.corpus import hypothesis, utterance


def _row(said: str, heard: str, times: list[tuple[float, float]]):
    words = tuple(TimedWord(w, *t) for w, t in zip(said.split(), times, strict=True))
    return hypothesis(replace(utterance("u", said), timed_words=words), heard)


def test_recognised_words_are_compared_with_those_they_stand_for():
    # Recognised words begin at 0, 1, 2 ... s and last 0.32 s.
    row = _row("A B C D", "A X C D E", [(0.1, 0.3), (1.0, 1.3), (1.8, 2.3), (3.0, 4.0)])
    times = word_times([row])
    assert times is not None and times.num_words == 3
    assert times.start == pytest.approx(((-0.1 + 0.2 + 0.0) / 3, 0.1, 0.18), abs=1e-6)
    assert times.end == pytest.approx(((0.02 + 0.02 - 0.68) / 3, 0.02, 0.548), abs=1e-6)
    assert str(times).startswith("times of 3 words: start median 0.100 s, p90 0.180 s, bias +0.03")


def test_a_word_too_many_moves_no_other():
    times = word_times([_row("A C", "A B C", [(0.0, 0.32), (2.0, 2.32)])])
    assert times is not None and times.start == (0.0, 0.0, 0.0) == times.end


def test_without_truth_or_words_there_is_nothing_to_say():
    assert word_times([]) is None
    assert word_times([hypothesis(utterance("u", "A"), "A")]) is None
    assert word_times([_row("A", "B", [(0.0, 1.0)])]) is None
