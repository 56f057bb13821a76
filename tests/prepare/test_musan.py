"""MUSAN's folder, whole, in part and with mistakes in it."""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.features import FeatureReader
from snowmelt.data.noise import load_noise
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.places import Places
from snowmelt.prepare.plans import musan_steps
from tests.prepare import corpora


def _run(folder: Path) -> list[str]:
    places = Places(folder / "data", folder / "download")
    return Pipeline("musan", places.data, musan_steps(places)).run(0, 4)


def test_windows_with_features(tmp_path: Path) -> None:
    corpora.musan(tmp_path / "download")
    assert _run(tmp_path) == [
        "MUSAN: 1 of music, 0 of speech, 1 of noise, 0.007 h",
        "musan_cuts.jsonl.gz: 4 cuts with features, 0.007 h",
    ]
    noise = load_noise(tmp_path / "data/fbank")
    assert [(cut.start, cut.duration) for cut in noise] == [(0, 10), (10, 10), (20, 6), (0, 1)]
    for cut in noise:
        stored = FeatureReader(is_stored=True).read(cut)
        assert abs(stored - FeatureReader().read(cut)).max() <= 2**-8
    manifests = tmp_path / "data/manifests"
    assert corpora.items(manifests / "musan_recordings_speech.jsonl.gz") == []
    (music,) = corpora.items(manifests / "musan_recordings_music.jsonl.gz")
    assert music["id"] == "music-jamendo-0000"
    # The same pieces as from the folder itself.
    straight = load_noise(tmp_path / "download/musan")
    assert [cut.duration for cut in straight] == [cut.duration for cut in noise]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "download/musan").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no sound files .*music, speech, noise"):
        _run(tmp_path)
    corpora.musan(tmp_path / "download")
    corpora.write_sound(tmp_path / "download/musan/noise/x/music-jamendo-0000.wav", 800)
    with pytest.raises(DataError, match="have the same name"):
        _run(tmp_path)
