"""Before a training: the same verdict as of a whole audit, and sound is listened to once."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import Features, MonoCut

from snowmelt.core.errors import DataError
from snowmelt.data.audit import AuditLimits, audit
from snowmelt.data.audit import start as start_module
from snowmelt.data.audit.sound import sound_facts
from snowmelt.data.audit.start import (
    StartAudit,
    audit_at_start,
    memory_path,
    remember_heard,
)
from snowmelt.text.tokenizer import build_words
from tests.data.audit.planted import TEXTS, burst, corpus, write

Corpus = dict[str, list[MonoCut]]


class _Ears:
    """Counts what is listened to."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, function: Callable[..., Any], tasks: Iterable[list[MonoCut]]) -> Any:
        for task in tasks:
            self.heard += [cut.id for cut in task]
            yield function(task)


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> _Ears:
    # Also of little sound.
    monkeypatch.setattr(start_module, "_MIN_SHARED_S", 0.0)
    return _Ears()


def _look(cuts: Corpus, folder: Path, ears: _Ears, **changes: Any) -> StartAudit:
    arguments: dict[str, Any] = {
        "memory": memory_path(folder, "mine"),
        "limits": AuditLimits(),
        "tokenizer": build_words(TEXTS),
        "map_tasks": ears,
    }
    return audit_at_start("mine", cuts, **{**arguments, **changes})


def _path(cut: MonoCut) -> Path:
    return Path(cut.recording.sources[0].source)


def test_sound_is_heard_once(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    first = _look(cuts, tmp_path, ears)
    assert str(first) == "Audit of mine: 52 utterances, all heard: nothing was found"
    assert len(ears.heard) == 52
    first.require_fit()
    again = _look(cuts, tmp_path, ears)
    assert str(again) == "Audit of mine: 52 utterances, all heard before: nothing was found"
    assert len(ears.heard) == 52


def test_what_was_found_is_remembered_too(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    cut = cuts["train"][5]
    write(_path(cut), np.clip(20 * burst(500, cut.duration), -1.0, 1.0))
    cuts["train"][7].supervisions[0].text = "FOUR FIVE FIFTY"
    first = _look(cuts, tmp_path, ears)
    assert [f.defect for f in first.findings] == ["clipped", "unknown-characters"]
    assert _look(cuts, tmp_path, ears).findings == first.findings and len(ears.heard) == 52
    # A vocabulary changes nothing that is heard.
    other = _look(cuts, tmp_path, ears, tokenizer=build_words([*TEXTS, "FIFTY"]))
    assert other.is_remembered and [f.defect for f in other.findings] == ["clipped"]


@pytest.mark.parametrize("change", ["text", "size", "threshold", "fewer", "memory"])
def test_it_is_heard_again_when_it_may_have_changed(
    tmp_path: Path, ears: _Ears, change: str
) -> None:
    cuts, limits = corpus(tmp_path), AuditLimits()
    _look(cuts, tmp_path, ears)
    if change == "text":
        cuts["train"][3].supervisions[0].text = "TEN"
    elif change == "size":
        path = _path(cuts["train"][3])
        path.write_bytes(path.read_bytes() + b"\0\0")
    elif change == "threshold":
        limits = replace(limits, max_clipped=0.001)
    elif change == "fewer":
        del cuts["train"][3]
    else:
        memory_path(tmp_path, "mine").write_text("no JSON")
    assert not _look(cuts, tmp_path, ears, limits=limits).is_remembered
    assert len(ears.heard) > 100
    # Lengths are in the manifest.
    longer = replace(limits, max_utterance_s=21.0)
    assert _look(cuts, tmp_path, ears, limits=longer).is_remembered


def test_a_file_that_goes_missing_later_is_found(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    _look(cuts, tmp_path, ears)
    _path(cuts["train"][5]).unlink()
    _path(cuts["dev"][1]).write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
    found = _look(cuts, tmp_path, ears)
    assert [(f.defect, f.cut_id) for f in found.findings] == [
        ("missing", "train-05"),
        ("lfs-pointer", "dev-01"),
    ]
    with pytest.raises(DataError, match="must not start on mine: 1 missing, 1 lfs-pointer; the fi"):
        found.require_fit()
    # The maker of the corpus says that this is as it should be.
    _look(cuts, tmp_path, ears, ignored=frozenset({"missing", "lfs-pointer"})).require_fit()


def test_a_whole_audit_is_remembered(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    cuts["test"][5].supervisions[0].speaker = "train-1"
    write(_path(cuts["train"][5]), np.zeros(cuts["train"][5].num_samples, np.float32))
    whole = audit(cuts, tokenizer=build_words(TEXTS))
    memory = memory_path(tmp_path, "mine")
    remember_heard(memory, whole.utterances, whole.findings, AuditLimits())
    found = _look(cuts, tmp_path, ears)
    assert found.is_remembered and not ears.heard
    assert found.findings == whole.findings
    assert [f.defect for f in found.findings] == ["silent", "speaker-in-two-splits"]


def test_of_much_sound_a_part_is_heard_and_of_copies_nothing(
    tmp_path: Path, ears: _Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = corpus(tmp_path)
    monkeypatch.setattr(start_module, "_MAX_HEARD_S", 20.0)
    found = _look(cuts, tmp_path, ears)
    assert found.num_heard == len(ears.heard) == 11  # every fifth
    assert "52 utterances, 11 of them heard: " in str(found)
    monkeypatch.undo()
    monkeypatch.setattr(start_module, "_MIN_SHARED_S", 0.0)
    cuts["train"] += [cut.perturb_speed(1.1) for cut in cuts["train"]]
    ears.heard.clear()
    assert _look(cuts, tmp_path / "2", ears).num_heard == 52
    assert not any(name.endswith("_sp1.1") for name in ears.heard)


def test_with_stored_features_no_sound_is_needed(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    features = tmp_path / "feats.npy"
    features.write_bytes(bytes(2000))
    for cut in [cut for those in cuts.values() for cut in those]:
        _path(cut).unlink()
        cut.features = Features("fbank", 10, 80, 0.01, 16_000, 0.0, 0.1, "rows", str(features), "0")
    found = _look(cuts, tmp_path, ears, has_sound=False)
    assert str(found) == "Audit of mine: 52 utterances, looked at but not heard: nothing was found"
    features.unlink()
    found = _look(cuts, tmp_path, ears, has_sound=False)
    assert {f.defect for f in found.findings} == {"missing"} and len(found.findings) == 52


def test_memory_is_bounded_and_no_condition(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    for n in range(12):
        _look(cuts, tmp_path, ears, limits=AuditLimits(max_clipped=0.01 + n))
    memory = memory_path(tmp_path, "mine")
    assert len(json.loads(memory.read_text())) == 10
    # Where nothing can be written, listening goes on.
    (tmp_path / "file").touch()
    assert _look(cuts, tmp_path, ears, memory=tmp_path / "file" / "heard.json").num_heard == 52


def test_facts_of_a_mix_are_those_of_its_files(tmp_path: Path, ears: _Ears) -> None:
    cuts = corpus(tmp_path)
    one, two = cuts["train"][0], cuts["train"][1]
    cuts["train"][0] = one.append(two).with_id("both")
    assert sound_facts([cuts["train"][0]])[0].problem == ""
    assert _look(cuts, tmp_path, ears).num_heard == 52
    _path(two).unlink()
    found = _look(cuts, tmp_path, ears).findings
    assert [(f.defect, f.cut_id) for f in found] == [("missing", "both"), ("missing", "train-01")]
