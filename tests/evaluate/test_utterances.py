"""Cuts as utterances: words, durations, and sound at the file's own rate."""

import numpy as np
import pytest

from snowmelt.evaluate.utterances import from_cuts
from tests.evaluate.corpus import NoiseCorpus


def test_cuts_become_utterances(tmp_path):
    utterances = from_cuts(NoiseCorpus(tmp_path).cuts("test"))
    assert [u.utterance_id for u in utterances] == ["test-0", "test-1", "test-2"]
    assert all(u.words == ["A", "BC"] for u in utterances)
    assert [u.duration_s for u in utterances] == pytest.approx([0.5, 0.9, 1.3])
    rates, sounds = zip(*(u.load() for u in utterances), strict=True)
    assert rates == (16000, 8000, 16000)
    assert [len(sound) for sound in sounds] == [8000, 7200, 20800]
    assert all(sound.dtype == np.float32 for sound in sounds)
