"""Samples, texts and word times of cuts; lhotse's own loader is the second opinion."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, CutSet, MonoCut
from lhotse.cut import MixedCut, MixTrack, PaddingCut
from lhotse.supervision import AlignmentItem

from snowmelt.core.errors import DataError, UserError
from snowmelt.data.corpora.wav import whole_file_cut
from snowmelt.data.cuts import (
    AudioCache,
    cut_text,
    cut_words,
    has_speed_copies,
    load_samples,
    with_speed_copies,
)
from tests.data.fakes import noise_cut, with_stored_features


def _string(folder: Path) -> MixedCut:
    """0.5 s of silence with two sounds in it."""
    silence = PaddingCut("silence", 0.5, 16000, feat_value=-23.0, num_samples=8000)
    first = noise_cut(folder, "first", 1600, "ONE")
    second = noise_cut(folder, "second", 2400, "TWO")
    tracks = [MixTrack(silence), MixTrack(second, offset=0.25), MixTrack(first, offset=0.1)]
    return MixedCut("string", tracks)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    whole = noise_cut(tmp_path, "a", 4000)
    cache = AudioCache()
    part = whole.truncate(offset=0.05, duration=0.1)
    assert np.array_equal(load_samples(part, cache), load_samples(whole, cache)[800:2400])


def test_same_samples_as_lhotse(tmp_path: Path) -> None:
    cuts = [noise_cut(tmp_path, "a", 4000), _string(tmp_path)]
    # What the cache does not understand goes through lhotse: here, a mix at a given level.
    cuts.append(cuts[0].mix(cuts[1], snr=10))
    for cut in cuts:
        assert np.array_equal(load_samples(cut, AudioCache()), cut.load_audio()[0])


@pytest.mark.parametrize("num_samples", [1, 1600, 1601, 1604, 1605, 1606])
def test_speed_copies_are_as_long_as_they_say(tmp_path: Path, num_samples: int) -> None:
    cuts = CutSet.from_cuts([noise_cut(tmp_path, "a", num_samples), _string(tmp_path)])
    copies = with_speed_copies(cuts)
    ids = ["a", "string", "a_sp0.9", "string_sp0.9", "a_sp1.1", "string_sp1.1"]
    assert [cut.id for cut in copies] == ids
    cache = AudioCache()
    for cut in copies:
        assert load_samples(cut, cache).shape == (cut.num_samples,)
    assert abs(copies["a_sp0.9"].num_samples - num_samples / 0.9) <= 0.5


def test_a_faster_tone_is_higher(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    time_s = np.arange(16000) / 16000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * time_s), 16000, subtype="PCM_16")
    cut = whole_file_cut("tone", str(path), 16000, "A", "someone")
    for factor in (0.9, 1.1):
        samples = load_samples(cut.perturb_speed(factor), AudioCache())
        peak_hz = np.argmax(np.abs(np.fft.rfft(samples))) * 16000 / len(samples)
        assert peak_hz == pytest.approx(1000 * factor, abs=2)
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_text_and_words_of_a_mix_are_in_order_of_time(tmp_path: Path) -> None:
    assert cut_text(_string(tmp_path)) == "ONE TWO"
    cut = _string(tmp_path)
    for track in cut.tracks[1:]:
        supervision = track.cut.supervisions[0]
        supervision.alignment = {"word": [AlignmentItem(supervision.text, 0.01, 0.05)]}
    assert [(w.symbol, w.start) for w in cut_words(cut)] == [("ONE", 0.11), ("TWO", 0.26)]
    slower = cut.perturb_speed(0.5)
    assert [(w.symbol, w.start, w.duration) for w in cut_words(slower)] == [
        ("ONE", 0.22, 0.1),
        ("TWO", 0.52, 0.1),
    ]


def test_words_count_from_the_start_of_the_cut(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 4000, "ONE")
    assert cut_words(cut) == []
    cut.supervisions[0].alignment = {"word": [AlignmentItem("ONE", 0.1, 0.05)]}
    part = cut.truncate(offset=0.06, keep_excessive_supervisions=True)
    assert cut_words(part) == [AlignmentItem("ONE", 0.04, 0.05)]


def test_cache_is_bounded_and_read_only(tmp_path: Path) -> None:
    cuts = [noise_cut(tmp_path, name, 1000) for name in "abc"]
    cache = AudioCache(max_bytes=2 * 4000)
    kept = [cache.read(cut.recording) for cut in cuts]
    assert cache.read(cuts[2].recording) is kept[2]
    assert cache.read(cuts[1].recording) is kept[1]
    assert cache.read(cuts[0].recording) is not kept[0]  # was dropped for c; drops c now
    assert cache.read(cuts[1].recording) is kept[1]
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0] = 1.0
    nothing = AudioCache(max_bytes=0)
    assert nothing.read(cuts[0].recording) is not nothing.read(cuts[0].recording)


def test_files_that_are_not_what_the_manifest_says(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 1000)
    soundfile.write(tmp_path / "a.wav", np.zeros(999), 16000)
    with pytest.raises(DataError, match="has 999 samples, its manifest says 1000"):
        load_samples(cut, AudioCache())
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 8000)
    with pytest.raises(DataError, match="has 8000 Hz, its manifest says 16000"):
        load_samples(cut, AudioCache())
    (tmp_path / "a.wav").unlink()
    with pytest.raises(UserError, match=r"a\.wav"):
        load_samples(cut, AudioCache())


def _long_cut(folder: Path, suffix: str = "flac") -> MonoCut:
    rng = np.random.default_rng(0)
    path = folder / f"long.{suffix}"
    soundfile.write(path, rng.uniform(-0.5, 0.5, 61 * 16000), 16000)
    return whole_file_cut("long", str(path), 61 * 16000, "A", "someone")


def test_of_a_long_recording_only_a_part_is_read(tmp_path: Path) -> None:
    whole = _long_cut(tmp_path)
    samples = load_samples(whole, AudioCache())
    cache = AudioCache()
    for offset, duration in ((0.0, 0.1), (20.00005, 1.0), (60.5, 0.5)):
        part = whole.truncate(offset=offset, duration=duration)
        start = round(offset * 16000)
        expected = samples[start : start + part.num_samples]
        assert np.array_equal(load_samples(part, cache), expected)
    # Nothing of it was kept: the recording would have been.
    (tmp_path / "long.flac").unlink()
    with pytest.raises(DataError, match=r"long\.flac does not exist"):
        load_samples(whole.truncate(duration=1.0), cache)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_part_of_a_long_recording_played_faster(tmp_path: Path, factor: float) -> None:
    whole = _long_cut(tmp_path).perturb_speed(factor)
    samples = load_samples(whole, AudioCache())
    last_s = whole.duration - 0.5
    for offset in (0.0, 0.05, 30.0, round(last_s, 4)):
        part = whole.truncate(offset=offset, duration=0.5)
        start = round(part.start * 16000)
        expected = samples[start : start + part.num_samples]
        found = load_samples(part, AudioCache())
        assert found.shape == expected.shape
        # At a file's end a resampler invents what it does not know.
        assert np.abs(found - expected)[:-100].max() < 1e-4


def test_a_long_recording_that_is_shorter_than_its_manifest_says(tmp_path: Path) -> None:
    part = _long_cut(tmp_path).truncate(offset=60.0, duration=1.0)
    soundfile.write(tmp_path / "long.flac", np.zeros(60 * 16000 + 100), 16000)
    with pytest.raises(DataError, match="ends 15900 samples before a cut"):
        load_samples(part, AudioCache())
    soundfile.write(tmp_path / "long.flac", np.zeros(61 * 8000), 8000)
    with pytest.raises(DataError, match="has 8000 Hz, its manifest says 16000"):
        load_samples(part, AudioCache())
    (tmp_path / "long.flac").write_bytes(b"no sound at all")
    with pytest.raises(DataError, match=r"long\.flac cannot be decoded"):
        load_samples(part, AudioCache())


def test_commands_in_manifests_are_not_run(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 1000)
    touched = tmp_path / "touched"
    cut.recording.sources = [AudioSource("command", [0], f"touch {touched}; cat {tmp_path}/a.wav")]
    for dangerous in (cut, noise_cut(tmp_path, "b", 1000).append(cut)):
        with pytest.raises(DataError, match="is the output of a command, which is not run"):
            load_samples(dangerous, AudioCache())
    assert not touched.exists()


def test_cuts_without_sound(tmp_path: Path) -> None:
    cut = noise_cut(tmp_path, "a", 16000)
    with_stored_features(cut, tmp_path, np.zeros((100, 80), np.float32))
    with pytest.raises(DataError, match="cut a has no recording"):
        load_samples(cut.drop_recording(), AudioCache())


def test_speed_copies_leave_stored_features_to_the_originals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = with_stored_features(
        noise_cut(tmp_path, "a", 16000), tmp_path, np.zeros((100, 80), np.float32)
    )
    copies = with_speed_copies(CutSet.from_cuts([cut]))
    assert [c.has_features for c in copies] == [True, False, False]
    assert not caplog.records
    assert has_speed_copies(copies) and not has_speed_copies(CutSet.from_cuts([cut]))
