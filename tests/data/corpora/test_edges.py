"""Utterances cut at their first and last sound: what is in them, and that no word is lost there."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import open_corpus
from snowmelt.data.corpora.edges import EdgeCorpus, cut_at_the_edges, speech_borders
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from tests.data.corpora.archives import digits_archive

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


def test_a_corpus_has_two_test_sets_for_each_of_its_own(tmp_path):
    digits_archive(tmp_path / "digits.tar")
    open_corpus("digits", tmp_path, tmp_path).prepare()
    corpus = open_corpus("digits-edges", tmp_path, tmp_path)
    assert corpus.name == "digits-edges"
    assert corpus.test_sets == ("digits-test-cut", "digits-test-silence")
    cut, silent = (list(corpus.cuts(name)) for name in corpus.test_sets)
    originals = list(open_corpus("digits", tmp_path, tmp_path).cuts("test"))
    assert len(corpus.cuts("test")) == 2 * len(originals) == len(cut) + len(silent)
    assert len({c.id for c in corpus.cuts("test")}) == 2 * len(originals)
    cache = AudioCache()
    for original, a, b in list(zip(originals, cut, silent, strict=True))[:9]:
        assert cut_text(a) == cut_text(b) == cut_text(original)
        short, long = load_samples(a, cache), load_samples(b, cache)
        assert len(short) < original.num_samples - 3200 + 1
        np.testing.assert_array_equal(long[8000:-8000], short)
        assert not long[:8000].any() and not long[-8000:].any()
        words, later = cut_words(a), cut_words(b)
        assert words[0].start == 0.0
        assert words[-1].start + words[-1].duration == pytest.approx(a.duration)
        assert [w.start for w in later] == pytest.approx([w.start + 0.5 for w in words])
        assert {w.symbol for w in words} == set(cut_text(a).split())
    assert next(c.id for c in corpus.cuts("dev")) == "digits-dev-000-cut"


def test_mistakes_are_named(tmp_path):
    cut = _cut(tmp_path / "a.wav", _sound((0.3, 0.5)))
    corpus = EdgeCorpus("own", ("test-x",), lambda split: CutSet.from_cuts([cut.append(cut)]))
    with pytest.raises(DataError, match="no split 'train'") as error:
        corpus.cuts("train")
    assert "own-test-x-cut" in str(error.value)
    with pytest.raises(DataError, match="put together"):
        corpus.cuts("own-test-x-cut")
    with pytest.raises(DataError, match="no corpus 'nowhere'"):
        open_corpus("nowhere-edges", Path(tmp_path), Path(tmp_path))
