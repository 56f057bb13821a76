"""An utterance comes out of its shard as it went in, and a damaged shard says so."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Features, MonoCut

from snowmelt.core.errors import DataError
from snowmelt.data.cuts import AudioCache, load_samples, with_speed_copies
from snowmelt.data.features import FeatureReader
from snowmelt.data.shards import (
    SOUND_KEY,
    STORAGE_TYPE,
    member_key,
    read_member,
    shard_of,
    sound_place,
)
from tests.data.fakes import noise_cut


def _shard(path: Path, members: dict[str, bytes]) -> dict[str, str]:
    """A tar file; name -> key."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        return {m.name: member_key(m.offset_data, members[m.name]) for m in tar}


def _flac(samples: np.ndarray) -> bytes:
    packed = io.BytesIO()
    soundfile.write(packed, samples, 16000, format="FLAC", subtype="PCM_16")
    return packed.getvalue()


def _in_shard(cut: MonoCut, path: Path, key: str) -> MonoCut:
    moved = cut.with_id(cut.id)
    moved.recording = moved.recording.with_path_prefix("")
    moved.recording.sources[0].source = str(path)
    moved.custom = {SOUND_KEY: key}
    return moved


@pytest.fixture
def cuts(tmp_path: Path) -> tuple[list[MonoCut], list[MonoCut]]:
    """The same two utterances in files and in a shard."""
    files = [noise_cut(tmp_path, name, 16000 + 400 * n) for n, name in enumerate("ab")]
    sounds = {cut.id: _flac(load_samples(cut, AudioCache())) for cut in files}
    keys = _shard(tmp_path / "shard.tar", sounds)
    return files, [_in_shard(cut, tmp_path / "shard.tar", keys[cut.id]) for cut in files]


def test_sound_is_the_same(cuts: tuple[list[MonoCut], list[MonoCut]]) -> None:
    cache = AudioCache()
    for there, here in zip(*cuts, strict=True):
        assert np.array_equal(load_samples(here, cache), load_samples(there, AudioCache()))
        part = [cut.truncate(offset=0.25, duration=0.5) for cut in (here, there)]
        assert np.array_equal(*(load_samples(cut, cache) for cut in part))
        copies = [list(with_speed_copies([cut]))[1] for cut in (here, there)]
        assert np.array_equal(*(load_samples(cut, cache) for cut in copies))
        assert shard_of(copies[0], has_stored_features=False).endswith("shard.tar")


def test_where_utterances_are(cuts: tuple[list[MonoCut], list[MonoCut]]) -> None:
    for there, here in zip(*cuts, strict=True):
        assert sound_place(there) == "" and sound_place(here)
        assert shard_of(there, has_stored_features=False) == ""
        assert Path(shard_of(here, has_stored_features=False)).name == "shard.tar"
        assert shard_of(here, has_stored_features=True) == ""


def test_features_are_the_same(tmp_path: Path) -> None:
    rows = np.arange(8000, dtype="<f2").reshape(100, 80)
    packed = io.BytesIO()
    np.save(packed, rows)
    key = _shard(tmp_path / "f.tar", {"x": b"first", "a": packed.getvalue()})["a"]
    cut = MonoCut("a", 0.0, 1.0, 0)
    path = str(tmp_path / "f.tar")
    cut.features = Features(
        "fbank", 100, 80, 0.01, 16000, 0.0, 1.0, STORAGE_TYPE, path, key, channels=0
    )
    read = FeatureReader(is_stored=True).read(cut)
    assert np.array_equal(read, rows) and read.dtype == np.float32
    assert np.array_equal(cut.truncate(offset=0.2, duration=0.5).load_features(), rows[20:70])
    assert shard_of(cut, has_stored_features=True) == path
    (tmp_path / "f.tar").unlink()
    with pytest.raises(DataError, match=r"cut a cannot be read: the shard .*f\.tar does not exist"):
        FeatureReader(is_stored=True).read(cut)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: p.write_bytes(p.read_bytes()[:30_000]), "is truncated: it ends before byte"),
        (lambda p: p.write_bytes(p.read_bytes()[::-1]), "is damaged between bytes"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec"), "git-lfs pointer"),
    ],
)
def test_a_damaged_shard_is_named(
    cuts: tuple[list[MonoCut], list[MonoCut]], tmp_path: Path, harm: object, reason: str
) -> None:
    harm(tmp_path / "shard.tar")  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"shard\.tar .*{reason}"):
        load_samples(cuts[1][1], AudioCache())


def test_a_key_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'1,2' names no place in"):
        read_member(tmp_path / "shard.tar", "1,2")
