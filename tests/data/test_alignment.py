"""Labels of encoder frames from word times."""

import numpy as np
import pytest

from snowmelt.data.alignment import NO_TARGET, TimedWord, frame_tokens, spread_words
from snowmelt.presets.frames import LSTM_FRONT_END
from snowmelt.text.tokenizer import build_chars, build_words

WORDS = build_words(["ONE TWO"])


def test_frames_whose_middle_lies_in_a_word_carry_its_token() -> None:
    one, two = WORDS.encode("ONE TWO")
    words = [TimedWord("ONE", 0.1, 0.2), TimedWord("TWO", 0.3, 0.4)]
    # Middles: 0.055, 0.095, 0.135, 0.175, 0.215, 0.255, 0.295, 0.335, 0.375, 0.415.
    expected = [0, 0, one, one, 0, 0, 0, two, two, 0]
    assert frame_tokens(words, 10, WORDS).tolist() == expected


def test_an_encoder_frame_has_the_middle_of_its_front_end() -> None:
    (one,) = WORDS.encode("ONE")
    words = [TimedWord("ONE", 0.13, 0.17)]
    # Middles: 0.055, 0.095, 0.135, 0.175, and 0.045, 0.085, 0.125, 0.165.
    assert frame_tokens(words, 5, WORDS).tolist() == [0, 0, one, 0, 0]
    labels = frame_tokens(words, 5, WORDS, front_end=LSTM_FRONT_END)
    assert labels.tolist() == [0, 0, 0, one, 0]


def test_borders_inside_a_word_are_unknown() -> None:
    labels = frame_tokens([TimedWord("ONE", 0.1, 0.2)], 6, build_chars(["ONE"]))
    assert labels.tolist() == [0, 0, NO_TARGET, NO_TARGET, 0, 0]


def test_a_word_beyond_the_last_frame_is_cut_off() -> None:
    labels = frame_tokens([TimedWord("ONE", 0.1, 9.0)], 4, WORDS)
    assert labels.tolist() == [0, 0, *WORDS.encode("ONE ONE")]


def test_guessed_words_fill_the_loud_part() -> None:
    features = np.full((100, 80), -15.0, np.float32)
    features[20:80] = -5.0
    words = spread_words(["A", "SEVEN"], features)
    assert [w.word for w in words] == ["A", "SEVEN"]
    assert words[0].start_s == pytest.approx(0.2)
    assert words[1].end_s == pytest.approx(0.8)
    assert words[0].end_s == words[1].start_s
    # 7 + 1 letters against 7 + 5.
    assert words[0].end_s == pytest.approx(0.2 + 0.6 * 8 / 20)


@pytest.mark.parametrize("words", [[], ["ONE"]])
def test_nothing_to_spread(words: list[str]) -> None:
    assert spread_words(words, np.zeros((0, 80), np.float32)) == []


def test_an_even_sound_is_speech_throughout() -> None:
    (word,) = spread_words(["ONE"], np.full((50, 80), -7.0, np.float32))
    assert (word.start_s, word.end_s) == (0.0, 0.5)
