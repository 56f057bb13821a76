"""Cuts as utterances: words, durations, and sound at the file's own rate."""

import numpy as np
import pytest
from lhotse import SupervisionSegment
from lhotse.supervision import AlignmentItem

from snowmelt.data.alignment import TimedWord
from snowmelt.evaluate.utterances import from_cuts
from tests.evaluate.corpus import NoiseCorpus


def test_cuts_become_utterances(tmp_path):
    utterances = from_cuts(NoiseCorpus(tmp_path).cuts("test"))
    assert [u.utterance_id for u in utterances] == ["test-0", "test-1", "test-2"]
    assert all(u.words == ["A", "BC"] for u in utterances)
    assert [u.duration_s for u in utterances] == pytest.approx([0.5, 0.9, 1.3])
    assert all(u.timed_words == () and u.speaker == "" for u in utterances)
    rates, sounds = zip(*(u.load() for u in utterances), strict=True)
    assert rates == (16000, 8000, 16000)
    assert [len(sound) for sound in sounds] == [8000, 7200, 20800]
    assert all(sound.dtype == np.float32 for sound in sounds)


def test_who_spoke_and_when(tmp_path):
    (cut, other, _) = NoiseCorpus(tmp_path).cuts("test")
    word = AlignmentItem("A", 0.125, 0.25)
    cut.supervisions[0].speaker = "ann"
    cut.supervisions[0].alignment = {"word": [word]}
    part = SupervisionSegment("s2", other.recording_id, 0.5, 0.1, text="D", speaker="bob")
    other.supervisions[0].speaker = "ann"
    other.supervisions.append(part)
    known, mixed = from_cuts([cut, other])
    assert known.speaker == "ann" and known.timed_words == (TimedWord("A", 0.125, 0.375),)
    assert mixed.speaker == "" and mixed.words == ["A", "BC", "D"]


def test_times_of_words_count_from_the_start_of_the_cut(tmp_path):
    (cut, *_) = NoiseCorpus(tmp_path).cuts("test")
    words = [AlignmentItem("A", 0.1, 0.15), AlignmentItem("BC", 0.3, 0.1)]
    cut.supervisions[0].alignment = {"word": words}
    later = cut.truncate(offset=0.05, preserve_id=True)
    (utterance,) = from_cuts([later])
    assert utterance.timed_words == (TimedWord("A", 0.05, 0.2), TimedWord("BC", 0.25, 0.35))
