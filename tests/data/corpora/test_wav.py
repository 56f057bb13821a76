"""Sound of a prepared corpus: rounding, and files that come back bit for bit."""

from pathlib import Path

import numpy as np
import soundfile

from snowmelt.data.corpora.wav import to_int16, whole_file_cut, write_wav


def test_samples_round_to_nearest_and_clip() -> None:
    samples = np.array([0.0, 1.6 / 32768, -1.4 / 32768, 1.0, -1.0, 1.5], np.float32)
    assert to_int16(samples).tolist() == [0, 2, -1, 32767, -32768, 32767]


def test_written_sound_comes_back(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, 7).astype(np.int16)
    write_wav(tmp_path / "a.wav", samples)
    read, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 16000 and np.array_equal(read, samples)
    assert np.array_equal(to_int16(samples / np.float32(32768)), samples)


def test_a_cut_covers_its_file() -> None:
    cut = whole_file_cut("a", "a.wav", 1601, "ONE", "someone")
    assert cut.num_samples == 1601 and cut.duration == cut.supervisions[0].duration
    assert cut.supervisions[0].alignment is None
