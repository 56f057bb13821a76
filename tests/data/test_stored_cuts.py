"""Cuts in a file are the cuts of the manifest, for everybody who asks for them."""

from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, MonoCut

from snowmelt.core.errors import DataError
from snowmelt.data.audit import start as start_module
from snowmelt.data.batch import AsrDataset
from snowmelt.data.corpora import manifests
from snowmelt.data.corpora.manifests import ManifestCorpus
from snowmelt.data.cuts import with_speed_copies
from snowmelt.data.filter import filter_cuts
from snowmelt.data.stored_cuts import (
    ChosenCuts,
    CutSequence,
    SpeedCopies,
    StoredCuts,
    as_sequence,
    store_path,
)
from snowmelt.text.tokenizer import build_words
from tests.data.audit.planted import TEXTS, corpus
from tests.data.fakes import with_stored_features


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus "mine" with manifests that name sound files relatively."""
    for split, cuts in corpus(tmp_path / "sound").items():
        for cut in cuts:
            source = cut.recording.sources[0]
            source.source = str(Path(source.source).relative_to(tmp_path))
        CutSet.from_cuts(cuts).to_file(tmp_path / f"mine_cuts_{split}.jsonl.gz")
    return tmp_path


def _open(folder: Path) -> ManifestCorpus:
    return ManifestCorpus("mine", folder, train=["train", "dev"], dev=["dev"], test=["test"])


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CutSet, CutSet]:
    """The training cuts in memory, and in a store."""
    in_memory = _open(folder).cuts("train")
    monkeypatch.setattr(manifests, "_MAX_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(manifests, "_PIECE", 7)
    return in_memory, _open(folder).cuts("train")


def test_a_large_manifest_is_unpacked_once(both: tuple[CutSet, CutSet], folder: Path) -> None:
    in_memory, stored = both
    assert isinstance(as_sequence(stored), StoredCuts)
    assert not isinstance(as_sequence(in_memory), CutSequence)
    assert [c.to_dict() for c in stored] == [c.to_dict() for c in in_memory]
    assert len(stored) == 46 and as_sequence(stored)[-1].id == "dev-05"
    (path,) = (folder / ".cuts").glob("*.jsonl")
    time = path.stat().st_mtime_ns
    assert list(_open(folder).cuts("train")) == list(in_memory)
    assert path.stat().st_mtime_ns == time
    # Another manifest is another store.
    train = folder / "mine_cuts_train.jsonl.gz"
    CutSet.from_cuts(list(in_memory)[:9]).to_file(train)
    assert len(_open(folder).cuts("train")) == 15


def test_numbers_and_slices(both: tuple[CutSet, CutSet]) -> None:
    cuts, stored = list(both[0]), as_sequence(both[1])
    assert [c.id for c in stored[5:40:9]] == [c.id for c in cuts[5:40:9]]
    assert stored[5:40:9][-1].id == cuts[5:40:9][-1].id
    for number in (46, -47):
        with pytest.raises(IndexError):
            stored[number]
    assert [c.id for c in ChosenCuts(stored, [3, 1])] == [cuts[3].id, cuts[1].id]


def test_copies_and_filters_are_the_same(both: tuple[CutSet, CutSet], tmp_path: Path) -> None:
    tokenizer = build_words(TEXTS)
    results = []
    for cuts in both:
        copies = with_speed_copies(cuts)
        assert len(copies) == 3 * len(cuts)
        results.append(filter_cuts(copies, tokenizer, min_duration=1.0, max_duration=2.0))
    (in_memory, dropped), (stored, dropped_too) = results
    assert dropped == dropped_too and len(in_memory) < 138
    assert isinstance(as_sequence(stored), ChosenCuts)
    assert not isinstance(as_sequence(in_memory), CutSequence)
    assert [c.to_dict() for c in stored] == [c.to_dict() for c in in_memory]
    sets = [AsrDataset(cuts, tokenizer) for cuts in (in_memory, stored)]
    assert np.array_equal(*(dataset.durations for dataset in sets))
    batches = [dataset.get([50, 7, 20], epoch=1) for dataset in sets]
    assert batches[0].cut_ids == batches[1].cut_ids
    assert batches[0].features.equal(batches[1].features)


def test_copies_have_no_stored_features(tmp_path: Path) -> None:
    cuts: list[MonoCut] = corpus(tmp_path)["dev"]
    for cut in cuts:
        with_stored_features(cut, tmp_path, np.zeros((cut.num_samples // 160, 80), np.float32))
    copies = SpeedCopies(cuts, [0.9])
    assert [cut.has_features for cut in copies] == [True] * 6 + [False] * 6


def test_a_damaged_manifest_leaves_no_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_MAX_IN_MEMORY_BYTES", 0)
    path = folder / "mine_cuts_dev.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"the manifest .*mine_cuts_dev\.jsonl\.gz is damaged"):
        _open(folder).cuts("train")
    assert not list((folder / ".cuts").glob("*"))


def test_where_nothing_can_be_written_cuts_are_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_MAX_IN_MEMORY_BYTES", 0)
    (folder / ".cuts").touch()
    assert len(_open(folder).cuts("train")) == 46
    assert store_path([folder / "mine_cuts_dev.jsonl.gz"]).parent == folder / ".cuts"


def test_of_very_many_an_audit_at_the_start_sees_some(
    both: tuple[CutSet, CutSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_module, "_MAX_SEEN", 20)
    found = start_module.audit_at_start(
        "mine",
        {"train": both[1]},
        memory=tmp_path / "heard.json",
        limits=start_module.AuditLimits(),
        tokenizer=build_words(TEXTS),
    )
    assert str(found).startswith("Audit of mine: 46 utterances, 16 of them looked at, 16 of them h")
