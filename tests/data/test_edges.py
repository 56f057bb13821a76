"""Where speech begins and ends, and utterances without anything around it."""

import numpy as np
import pytest
import soundfile
from lhotse import Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from snowmelt.data.edges import cut_at_the_edges, speech_borders

RATE = 16000


def _sound(*pieces):
    """Tones of (seconds, amplitude); 0 is silence."""
    parts = [a * np.sin(2 * np.pi * 440 * np.arange(round(s * RATE)) / RATE) for s, a in pieces]
    return np.concatenate(parts).astype(np.float32)


def _cut(path, sound, words=(), text="A B"):
    soundfile.write(path, sound, RATE)
    cut = Recording.from_file(path).to_cut()
    items = {"word": [AlignmentItem(*word) for word in words]} if words else None
    cut.supervisions = [
        SupervisionSegment(cut.id, cut.recording_id, 0.0, cut.duration, text=text, alignment=items)
    ]
    return cut


def test_borders_are_those_of_the_loud_part():
    sound = _sound((0.1, 0), (0.3, 0.5), (0.2, 0.001))
    assert speech_borders(sound, RATE) == (1600, 6400)
    # 28 dB below the loudest still counts, 32 dB does not.
    assert speech_borders(_sound((0.1, 0.02), (0.3, 0.5)), RATE) == (0, 6400)
    assert speech_borders(_sound((0.1, 0.0125), (0.3, 0.5)), RATE) == (1600, 6400)
    # A frame is 5 ms; what is left over belongs to the last one.
    assert speech_borders(_sound((0.0031, 0.5)), RATE) == (0, 50)
    assert speech_borders(_sound((0.0131, 0.5)), RATE) == (0, 210)
    assert speech_borders(np.zeros(800, np.float32), RATE) == (0, 800)


def test_the_first_and_the_last_word_decide(tmp_path):
    # The words in between are louder; a quiet word is not cut for that.
    sound = _sound((0.1, 0), (0.2, 0.01), (0.3, 0.9), (0.2, 0.02), (0.1, 0))
    words = [("A", 0.05, 0.25), ("B", 0.3, 0.3), ("C", 0.6, 0.25)]
    cut = _cut(tmp_path / "a.wav", sound, words, text="A B C")
    shorter = cut_at_the_edges(cut, AudioCache())
    np.testing.assert_array_equal(
        load_samples(shorter, AudioCache()), load_samples(cut, AudioCache())[1600:12800]
    )
    times = [(w.symbol, w.start, w.start + w.duration) for w in cut_words(shorter)]
    assert times == [("A", 0.0, 0.2), ("B", 0.2, 0.5), pytest.approx(("C", 0.5, 0.7))]
    assert cut_text(shorter) == "A B C"


def test_without_word_times_the_utterance_decides(tmp_path):
    sound = _sound((0.2, 0), (0.3, 0.5), (0.1, 0), (0.3, 0.4), (0.15, 0.001))
    part = _cut(tmp_path / "a.wav", sound).truncate(offset=0.1, preserve_id=True)
    shorter = cut_at_the_edges(part, AudioCache())
    assert (shorter.start, shorter.duration) == (0.2, 0.7)
    assert cut_words(shorter) == []


def test_strings_put_together_from_recordings_are_cut_too(tmp_path):
    first = _cut(tmp_path / "a.wav", _sound((0.02, 0.001), (0.2, 0.5)), [("A", 0.0, 0.22)], "A")
    second = _cut(tmp_path / "b.wav", _sound((0.2, 0.3), (0.04, 0.001)), [("B", 0.0, 0.24)], "B")
    whole = first.pad(duration=0.5).append(second).pad(duration=1.0)
    whole = whole.pad(duration=1.2, direction="left")
    shorter = cut_at_the_edges(whole, AudioCache())
    expected = load_samples(whole, AudioCache())[round(0.22 * RATE) : round(0.9 * RATE)]
    np.testing.assert_array_equal(load_samples(shorter, AudioCache()), expected)
    assert cut_text(shorter) == "A B" and shorter.id == whole.id
    assert [w.start for w in cut_words(shorter)] == pytest.approx([-0.02, 0.48])
