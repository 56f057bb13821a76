"""Mixing: the formula, the ratio that was drawn, draws per utterance; and where noise is found."""

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from lhotse import CutSet

from snowmelt.core.errors import DataError
from snowmelt.data.features import FeatureReader
from snowmelt.data.noise import NoiseMixer, load_noise
from tests.data.fakes import noise_cut


def _speech(num_frames: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(-8.0, 3.0, (num_frames, 80)).astype(np.float32)


def _mixer(folder: Path) -> NoiseMixer:
    """Always a second of the same noise, at 12 dB."""
    piece = noise_cut(folder, "noise0", 16000)
    return NoiseMixer([piece], FeatureReader(), probability=1.0, snr_range_db=(12.0, 12.0))


def _added(
    mixed: npt.NDArray[np.float32], speech: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Energies of the noise in a mix."""
    return np.exp(mixed.astype(np.float64)) - np.exp(speech.astype(np.float64))


def _noisy(
    mixed: npt.NDArray[np.float32], speech: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Frames with noise in them."""
    return (mixed > speech + 1e-3).any(axis=1)


def test_formula_where_the_noise_is_longer(tmp_path: Path) -> None:
    speech = _speech(70)
    mixed = _mixer(tmp_path).mix(speech, random.Random(0))
    noise = FeatureReader().read(noise_cut(tmp_path, "noise0", 16000), max_frames=70)
    # As the original has it, with sums: both have 70 frames.
    speech_energies, noise_energies = np.exp(speech), np.exp(noise)
    gain = speech_energies.sum() * 10 ** (-12.0 / 10) / noise_energies.sum()
    expected = np.log(np.maximum(1e-10, speech_energies + gain * noise_energies))
    assert mixed.dtype == np.float32 and mixed.shape == speech.shape
    assert np.allclose(mixed, expected, atol=2e-5)


def test_pieces_follow_one_another_each_at_the_ratio_that_was_drawn(tmp_path: Path) -> None:
    speech = _speech(1030)
    mixed = _mixer(tmp_path).mix(speech, random.Random(0))
    added = _added(mixed, speech)
    wanted = np.exp(speech.astype(np.float64)).mean() / 10**1.2
    for first in (0, 100, 500, 900, 1000):
        assert added[first : first + 100].mean() == pytest.approx(wanted, rel=0.01)
    # The last piece is cut where the utterance ends.
    assert _noisy(mixed, speech).all()


def test_a_few_frames_at_the_end_get_no_piece_of_their_own(tmp_path: Path) -> None:
    mixer = _mixer(tmp_path)
    speech = _speech(106)
    assert _noisy(mixer.mix(speech, random.Random(0)), speech).all()
    speech = _speech(105)
    mixed = mixer.mix(speech, random.Random(0))
    assert _noisy(mixed, speech).tolist() == 100 * [True] + 5 * [False]
    # An utterance of as few frames gets one all the same.
    speech = _speech(3)
    assert _noisy(mixer.mix(speech, random.Random(0)), speech).all()


def test_how_often_and_how_loud(tmp_path: Path) -> None:
    pieces = [noise_cut(tmp_path, f"noise{n}", 16000) for n in range(3)]
    mixer = NoiseMixer(pieces, FeatureReader())
    speech = _speech(50)
    ratios = []
    for n in range(400):
        mixed = mixer.mix(speech, random.Random(n))
        if mixed is not speech:
            added = _added(mixed, speech).mean()
            ratios.append(10 * np.log10(np.exp(speech.astype(np.float64)).mean() / added))
    assert 170 <= len(ratios) <= 230
    assert 9.99 <= min(ratios) < 10.5 and 19.5 < max(ratios) <= 20.01
    assert np.mean(ratios) == pytest.approx(15.0, abs=0.6)


def test_draws_come_from_the_generator_alone(tmp_path: Path) -> None:
    pieces = [noise_cut(tmp_path, f"noise{n}", 8000 + 800 * n) for n in range(5)]
    mixer = NoiseMixer(pieces, FeatureReader(), probability=1.0)
    speech = _speech(200)
    first = mixer.mix(speech, random.Random(1))
    assert not np.array_equal(mixer.mix(speech, random.Random(2)), first)
    assert np.array_equal(mixer.mix(speech, random.Random(1)), first)


def test_silence_and_tiny_pieces(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    silence = load_noise(tmp_path)
    mixed = NoiseMixer(silence, FeatureReader(), probability=1.0).mix(_speech(50), random.Random(0))
    assert np.isfinite(mixed).all()
    with pytest.raises(DataError, match="no noise to mix in"):
        NoiseMixer([noise_cut(tmp_path, "tiny", 100)], FeatureReader())


def _write(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(16000 * seconds)), 16000)


def test_a_folder_of_sound_files(tmp_path: Path) -> None:
    _write(tmp_path / "noise" / "free" / "b.wav", 3.0)  # short as a whole
    _write(tmp_path / "noise" / "free" / "a.flac", 14.9)  # the rest is too short
    _write(tmp_path / "music" / "c.WAV", 26.0)
    (tmp_path / "noise" / "LICENSE").write_text("free")
    pieces = load_noise(tmp_path)
    assert [(piece.id, piece.start, piece.duration) for piece in pieces] == [
        ("music/c.WAV-0", 0.0, 10.0),
        ("music/c.WAV-1", 10.0, 10.0),
        ("music/c.WAV-2", 20.0, 6.0),
        ("noise/free/a.flac-0", 0.0, 10.0),
        ("noise/free/b.wav-0", 0.0, 3.0),
    ]
    assert FeatureReader().read(pieces[2]).shape == (600, 80)


def test_a_manifest_of_noise(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    _write(tmp_path / "not-in-the-manifest.wav", 3.0)
    CutSet.from_cuts([cut]).to_file(tmp_path / "musan_cuts.jsonl.gz")
    for path in (tmp_path, tmp_path / "musan_cuts.jsonl.gz"):
        assert [piece.id for piece in load_noise(path)] == ["a"]


def test_no_noise(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="neither musan_cuts.jsonl.gz nor sound files"):
            load_noise(folder)
