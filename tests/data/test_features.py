"""Features computed from the sound, features that were stored, and what is said when neither is."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from lhotse import MonoCut

from snowmelt.audio.fbank import FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.features import FeatureReader
from tests.data.fakes import noise_cut, with_stored_features

_FLOOR = math.log(1.1920928955078125e-07)


def _samples(cut: MonoCut) -> npt.NDArray[np.float32]:
    samples, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
    return samples


def _stored(cut: MonoCut, folder: Path) -> npt.NDArray[np.float32]:
    """Stores features that nobody could compute; returns them."""
    features = np.arange(cut.num_samples // 160 * 80, dtype=np.float32).reshape(-1, 80)
    with_stored_features(cut, folder, features)
    return features


def test_computed_features_are_exact_although_others_are_stored(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    _stored(cut, tmp_path)
    assert np.array_equal(FeatureReader().read(cut), fbank(_samples(cut)))


def test_stored_features_need_no_sound(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    features = _stored(cut, tmp_path)
    (tmp_path / "a.wav").unlink()
    read = FeatureReader(is_stored=True).read(cut)
    assert np.array_equal(read, features) and read.dtype == np.float32


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_tail_is_digital_silence(tmp_path: Path, is_stored: bool) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    _stored(cut, tmp_path)
    reader = FeatureReader(is_stored=is_stored)
    longer = reader.read(cut, num_tail_samples=1600)
    assert longer.shape == (110, 80)
    assert np.array_equal(longer[:98], reader.read(cut)[:98])
    assert np.allclose(longer[102:], _FLOOR)


@pytest.mark.parametrize("is_stored", [False, True])
def test_the_beginning_only(tmp_path: Path, is_stored: bool) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    _stored(cut, tmp_path)
    reader = FeatureReader(is_stored=is_stored)
    assert reader.read(cut, max_frames=30).shape == (30, 80)
    # The last frame of shortened sound sees its mirror image.
    assert np.array_equal(reader.read(cut, max_frames=30)[:29], reader.read(cut)[:29])
    assert reader.read(cut, max_frames=1000).shape == (100, 80)


def test_missing_and_unreadable_stored_features(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    reader = FeatureReader(is_stored=True)
    with pytest.raises(DataError, match=r"cut a has no stored features \(hint: compute .*true\)"):
        reader.read(cut)
    _stored(cut, tmp_path)
    (tmp_path / "a" / "a.npy").unlink()
    with pytest.raises(DataError, match="stored features of cut a cannot be read: .*No such file"):
        reader.read(cut)


def test_a_storage_whose_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    _stored(cut, tmp_path)
    cut.features.storage_type = "lilcom_chunky"
    monkeypatch.setattr("lhotse.features.io.is_module_available", lambda *names: False)
    with pytest.raises(DataError, match="cannot be read: .*pip install lilcom.*on-the-fly-feats"):
        FeatureReader(is_stored=True).read(cut)


def test_stored_features_of_another_kind(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    reader = FeatureReader(is_stored=True)
    with_stored_features(cut, tmp_path, np.zeros((100, 40), np.float32))
    with pytest.raises(DataError, match=r"have shape \(100, 40\), not \(T, 80\)"):
        reader.read(cut)
    with_stored_features(cut, tmp_path, np.zeros((80, 80), np.float32), frame_shift_s=0.0125)
    with pytest.raises(DataError, match=r"come every 12\.5 ms, not every 10 ms"):
        reader.read(cut)


def test_other_sample_rates_are_refused(tmp_path: Path) -> None:
    reader = FeatureReader(FbankConfig(sample_rate=8000))
    with pytest.raises(DataError, match="a has 16000 Hz, the features are computed at 8000 Hz"):
        reader.read(noise_cut(tmp_path, "a", 16000))
