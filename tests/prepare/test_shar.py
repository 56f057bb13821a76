"""A corpus in shards is the corpus, for us and for lhotse; a killed run goes on where it stood."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet, MonoCut
from lhotse.supervision import AlignmentItem

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import open_corpus
from snowmelt.data.cuts import (
    AudioCache,
    cut_text,
    cut_words,
    has_speed_copies,
    load_samples,
    with_speed_copies,
)
from snowmelt.data.features import FeatureReader, why_not_stored
from snowmelt.prepare import shar as shar_module
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.shar import Content, SharCorpus, shar_steps
from snowmelt.prepare.workers import Workers
from tests.data.audit.planted import corpus


def _write(splits: dict[str, list[MonoCut]], data: Path, content: Content = "sound") -> list[str]:
    shar = SharCorpus("mine", splits, content, shard_size=15)
    return Pipeline("mine", data, shar_steps(shar, data, Workers(1))).run(1, 1)


def _read(data: Path, split: str) -> list[Any]:
    return list(open_corpus("mine", data, data).cuts(split))


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_sound(tmp_path: Path) -> None:
    splits = corpus(tmp_path / "sound")
    assert _write(splits, tmp_path / "data")[0].startswith("train: 40 utterances, 0.0")
    names = sorted(path.name for path in (tmp_path / "data" / "mine" / "train").iterdir())
    assert names[:3] == ["cuts.000000.jsonl.gz", "cuts.000001.jsonl.gz", "cuts.000002.jsonl.gz"]
    assert names[3:] == [f"recording.00000{n}.tar" for n in range(3)]
    for split, before in splits.items():
        after = _read(tmp_path / "data", split)
        assert [c.id for c in after] == [c.id for c in before]
        for old, new in zip(before, after, strict=True):
            assert cut_text(new) == cut_text(old) and new.duration == old.duration
            assert new.supervisions[0].speaker == old.supervisions[0].speaker
            samples = load_samples(old, AudioCache())
            assert np.array_equal(load_samples(new, AudioCache()), samples)


# lhotse leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("content", ["sound", "features"])
def test_lhotse_reads_them(tmp_path: Path, content: Content) -> None:
    splits = corpus(tmp_path / "sound")
    _write(splits, tmp_path / "data", content)
    theirs = list(CutSet.from_shar(in_dir=tmp_path / "data" / "mine" / "train"))
    assert [c.id for c in theirs] == [c.id for c in splits["train"]]
    for old, new in zip(splits["train"], theirs, strict=True):
        assert new.supervisions[0].text == cut_text(old)
        if content == "sound":
            assert np.array_equal(new.load_audio()[0], load_samples(old, AudioCache()))
        else:
            features = FeatureReader().read(old)
            assert np.abs(new.load_features() - features).max() < 0.01


def test_features(tmp_path: Path) -> None:
    splits = corpus(tmp_path / "sound")
    splits["train"] = list(with_speed_copies(CutSet.from_cuts(splits["train"])))
    _write(splits, tmp_path / "data", "features")
    after = _read(tmp_path / "data", "train")
    assert len(after) == 120 and has_speed_copies(CutSet.from_cuts(after))
    assert not has_speed_copies(CutSet.from_cuts(_read(tmp_path / "data", "dev")))
    reader = FeatureReader(is_stored=True)
    assert why_not_stored(after, reader.config) == ""
    for old, new in zip(splits["train"], after, strict=True):
        features = FeatureReader().read(old)
        assert np.array_equal(reader.read(new), features.astype(np.float16).astype(np.float32))


def test_parts_of_recordings_and_their_words(tmp_path: Path) -> None:
    splits = corpus(tmp_path / "sound")
    whole = splits["train"][20]
    whole.supervisions[0].alignment = {"word": [AlignmentItem("ONE", 0.5, 0.2)]}
    splits["train"][20] = whole.truncate(offset=0.3, duration=0.6, preserve_id=True)
    before = cut_words(splits["train"][20])
    _write(splits, tmp_path / "data")
    after = _read(tmp_path / "data", "train")[20]
    assert after.start == 0.0 and after.duration == 0.6
    assert np.array_equal(
        load_samples(after, AudioCache()), load_samples(whole, AudioCache())[4800:14400]
    )
    assert cut_words(after) == before and before[0].start == pytest.approx(0.2)


def test_what_is_there_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = corpus(tmp_path / "sound")
    _write(splits, tmp_path / "whole")
    whole = _content(tmp_path / "whole")
    written: list[str] = []
    write_manifest = shar_module.write_manifest

    def counted(path: Path, items: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_manifest(path, items)

    monkeypatch.setattr(shar_module, "write_manifest", counted)
    for _ in range(3):
        written.clear()
        with pytest.raises(KeyboardInterrupt):
            _write(splits, tmp_path / "killed")
    monkeypatch.undo()
    _write(splits, tmp_path / "killed")
    assert _content(tmp_path / "killed") == whole
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("*.tar")}
    _write(splits, tmp_path / "killed")
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("*.tar")}


def test_several_transcripts_are_refused(tmp_path: Path) -> None:
    splits = corpus(tmp_path / "sound")
    splits["dev"][0] = splits["dev"][0].append(splits["dev"][1]).with_id("both")
    with pytest.raises(DataError, match="cut both has 2 transcripts, not one"):
        _write(splits, tmp_path / "data")


def test_the_manifest_says_where_each_is(tmp_path: Path) -> None:
    _write(corpus(tmp_path / "sound"), tmp_path / "data")
    with gzip.open(tmp_path / "data" / "mine" / "mine_cuts_train.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    sources = [line["recording"]["sources"][0]["source"] for line in lines]
    assert sources == [f"train/recording.00000{n // 15}.tar" for n in range(40)]
    assert len({line["custom"]["snowmelt_shard"] for line in lines}) == 40
