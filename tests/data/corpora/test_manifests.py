"""Parts and splits, paths that are found from anywhere, pieces, and manifests that are no good."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, SupervisionSegment

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.manifests import (
    ManifestCorpus,
    find_manifest,
    load_manifest,
    manifest_of_part,
)
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from snowmelt.data.features import FeatureReader
from tests.data.corpora.manifests import flac_cut, write_manifest, write_part
from tests.data.fakes import with_stored_features


def _corpus(folder: Path) -> ManifestCorpus:
    for part, num_cuts in (("a", 2), ("b", 1), ("d", 1), ("t1", 1), ("t2", 2)):
        write_part(folder, "talk", part, num_cuts)
    return ManifestCorpus("talk", folder, train=("b", "a"), dev=("d",), test=("t1", "t2"))


def _ids(cuts: CutSet) -> list[str]:
    return [cut.id for cut in cuts]


def test_splits_are_parts_in_order_and_test_sets_have_names(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path)
    assert _ids(corpus.cuts("train", epoch=3)) == ["b-0", "a-0", "a-1"]
    assert _ids(corpus.cuts("dev")) == ["d-0"]
    assert corpus.test_sets == ("t1", "t2")
    assert _ids(corpus.cuts("t2")) == ["t2-0", "t2-1"]
    assert _ids(corpus.cuts("test")) == ["t1-0", "t2-0", "t2-1"]
    assert not corpus.varies_with_epoch
    with pytest.raises(DataError, match=r"talk has no split 'a' \(hint: choose train, .*, t2\)"):
        corpus.cuts("a")


def test_a_split_is_read_once(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path)
    first = corpus.cuts("train", epoch=1)
    (tmp_path / "talk_cuts_a.jsonl.gz").unlink()
    assert corpus.cuts("train", epoch=2) is first


def test_texts_and_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    cut = flac_cut(tmp_path, "x-1_sp0.9.flac", "Don't  touch, <this>")
    write_manifest(tmp_path / "m.jsonl", [cut])
    (loaded,) = load_manifest(tmp_path / "m.jsonl")
    assert (loaded.id, cut_text(loaded)) == ("x-1_sp0.9", "Don't  touch, <this>")


def test_paths_count_from_here_or_from_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, moved = tmp_path / "here", tmp_path / "moved" / "fbank"
    monkeypatch.chdir(tmp_path)
    # As `prepare` writes them when it is run where training is run.
    write_manifest(moved / "a.jsonl.gz", [flac_cut(Path(), "here/one.flac")])
    # In a folder that was moved with all that is in it.
    cut = flac_cut(moved, "audio/two.flac")
    features = np.ones((10, 80), np.float32)
    with_stored_features(cut, moved, features)
    cut.features.storage_path, cut.features.storage_key = "two", "two.npy"
    write_manifest(moved / "b.jsonl.gz", [cut])
    absolute = flac_cut(here, "three.flac")
    write_manifest(moved / "c.jsonl.gz", [absolute.with_recording_path_prefix(here)])
    for name in "abc":
        (loaded,) = load_manifest(moved / f"{name}.jsonl.gz")
        assert load_samples(loaded, AudioCache()).shape == (1600,)
        if name == "b":
            assert np.array_equal(FeatureReader(is_stored=True).read(loaded), features)
    # From anywhere.
    loaded = load_manifest(moved / "b.jsonl.gz")[0]
    monkeypatch.chdir("/")
    assert load_samples(loaded, AudioCache()).shape == (1600,)


def test_a_path_that_leads_somewhere_from_here_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, folder = tmp_path / "here", tmp_path / "fbank"
    flac_cut(here, "audio/a.flac", num_samples=800)
    cut = flac_cut(folder, "audio/a.flac", num_samples=1600)
    write_manifest(folder / "m.jsonl.gz", [cut])
    monkeypatch.chdir(here)
    assert load_manifest(folder / "m.jsonl.gz")[0].recording.sources[0].source == "audio/a.flac"


def test_gzip_or_plain(tmp_path: Path) -> None:
    assert find_manifest(tmp_path, "m") is None
    write_manifest(tmp_path / "m.jsonl", [flac_cut(tmp_path, "plain.flac")])
    assert find_manifest(tmp_path, "m") == tmp_path / "m.jsonl"
    write_manifest(tmp_path / "m.jsonl.gz", [flac_cut(tmp_path, "packed.flac")])
    assert find_manifest(tmp_path, "m") == tmp_path / "m.jsonl.gz"
    for path, name in ((tmp_path / "m.jsonl", "plain"), (tmp_path / "m.jsonl.gz", "packed")):
        assert _ids(load_manifest(path)) == [name]


def test_pieces_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = "talk_XL_split_2000"
    for number in (10, 2, 1):
        file = f"{folder}/talk_cuts_XL.{number:08d}.jsonl.gz"
        write_part(tmp_path, "talk", f"XL{number}", file=file)
    write_part(tmp_path, "talk", "raw", file=f"{folder}/talk_cuts_XL_raw.00000001.jsonl.gz")
    (tmp_path / folder / "talk_cuts_XL.00000003.jsonl.gz.tmp").write_text("unfinished")
    paths = manifest_of_part(tmp_path, "talk", "XL")
    assert [path.name.split(".")[1] for path in paths] == ["00000001", "00000002", "00000010"]
    corpus = ManifestCorpus("talk", tmp_path, train=("XL",), dev=(), test=())
    cuts = corpus.cuts("train")
    assert _ids(cuts) == ["XL1-0", "XL2-0", "XL10-0"]
    # Paths in pieces count from the corpus's folder too.
    assert load_samples(cuts["XL10-0"], AudioCache()).shape == (1600,)


def test_manifests_without_features_are_second_choice(tmp_path: Path) -> None:
    write_part(tmp_path, "talk", "S", file="talk_cuts_S_raw.jsonl.gz")
    assert manifest_of_part(tmp_path, "talk", "S") == [tmp_path / "talk_cuts_S_raw.jsonl.gz"]
    write_part(tmp_path, "talk", "S")
    assert manifest_of_part(tmp_path, "talk", "S") == [tmp_path / "talk_cuts_S.jsonl.gz"]


def test_recordings_of_several_utterances_are_cut_into_them(tmp_path: Path) -> None:
    cut = flac_cut(tmp_path, "long.flac", num_samples=16000)
    cut.supervisions = [
        SupervisionSegment(f"s{n}", "long", start, 0.25, text=f"T{n}")
        for n, start in enumerate((0.1, 0.5))
    ]
    write_manifest(tmp_path / "m.jsonl.gz", [cut])
    loaded = list(load_manifest(tmp_path / "m.jsonl.gz"))
    assert [(c.start, c.duration, cut_text(c)) for c in loaded] == [
        (0.1, 0.25, "T0"),
        (0.5, 0.25, "T1"),
    ]
    assert len({c.id for c in loaded}) == 2
    samples = load_samples(cut.with_recording_path_prefix(tmp_path), AudioCache())
    assert np.array_equal(load_samples(loaded[1], AudioCache()), samples[8000:12000])


def test_missing_parts_are_named(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path)
    (tmp_path / "talk_cuts_a.jsonl.gz").unlink()
    with pytest.raises(
        DataError, match=r"holds no manifest of a: talk_cuts_a\.jsonl\.gz is missing .*train-parts"
    ):
        corpus.cuts("train")
    for name in ("../a", "/etc", "", "..", ".hidden"):
        with pytest.raises(DataError, match="is no name of a part of talk"):
            manifest_of_part(tmp_path, "talk", name)


def test_damaged_manifests(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl.gz"
    write_manifest(path, [flac_cut(tmp_path, f"{n}.flac") for n in range(50)])
    whole = path.read_bytes()
    lines = gzip.decompress(whole)
    for content in (
        b"",
        whole[: len(whole) // 2],
        b"no gzip",
        gzip.compress(b"no json\n"),
        gzip.compress(b'{"id": 3}\n'),
        gzip.compress(b"[1, 2]\n"),
        gzip.compress(lines[: len(lines) // 2]),
        gzip.compress(b"\xff\xfe\n"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"the manifest .*m\.jsonl\.gz (is damaged|holds no)"):
            load_manifest(path)
    path.unlink()
    with pytest.raises(DataError, match=r"the manifest .*m\.jsonl\.gz does not exist"):
        load_manifest(path)
