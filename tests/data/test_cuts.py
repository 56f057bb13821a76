"""Samples, texts and word times of cuts; lhotse's own loader is the second opinion."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.cut import MixedCut, MixTrack, PaddingCut
from lhotse.supervision import AlignmentItem

from snowmelt.core.errors import DataError, UserError
from snowmelt.data.corpora.wav import whole_file_cut
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples, with_speed_copies
from tests.data.fakes import noise_cut


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
