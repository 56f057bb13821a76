"""A Dask cluster gives what processes of this machine give; what it cannot do is one line."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lhotse import MonoCut

from snowmelt.core.errors import DataError, MissingExtraError, UserError
from snowmelt.data.audit import audit
from snowmelt.prepare.dask_workers import DaskWorkers
from snowmelt.prepare.features import write_cuts_with_features
from snowmelt.prepare.workers import Executor, Workers
from tests.data.audit.planted import burst, corpus, write

# What Dask itself is warned of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


def _place(number: int) -> tuple[int, str, int]:
    return number, os.getcwd(), os.getpid()


def _fail(number: int) -> int:
    raise DataError(f"{number} is no good", "take another")


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"hint: pip install 'snowmelt\[dask\]'"):
        DaskWorkers(2)


def test_nothing_is_started_before_it_is_needed() -> None:
    with DaskWorkers(2) as workers:
        assert workers._client is None


@pytest.mark.slow
def test_nobody_listens() -> None:
    with (
        DaskWorkers(1, "127.0.0.1:9") as workers,
        pytest.raises(UserError, match=r"no Dask scheduler answers at 127\.0\.0\.1:9 .hint: start"),
    ):
        list(workers.map(abs, [1]))


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskWorkers]:
    """Two workers, started once: that takes seconds."""
    with DaskWorkers(2) as workers:
        yield workers


@pytest.mark.slow
def test_results_come_in_order(
    cluster: DaskWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = list(cluster.map(_place, range(20)))
    assert [number for number, _, _ in results] == list(range(20))
    # Paths count from the folder of the command.
    assert {folder for _, folder, _ in results} == {str(tmp_path)}
    assert len({pid for *_, pid in results} - {os.getpid()}) == 2
    with pytest.raises(DataError, match=r"4 is no good \(hint: take another\)"):
        list(cluster.map(_fail, [4]))


def _features(folder: Path, cuts: list[MonoCut], workers: Executor) -> dict[str, bytes]:
    write_cuts_with_features(
        lambda: iter(cut.drop_features() for cut in cuts),
        folder / "cuts.jsonl.gz",
        folder / "feats",
        folder,
        source=lambda cut: cut.id,
        title="features",
        workers=workers,
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_features_and_audit_are_the_same(
    cluster: DaskWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snowmelt.prepare.features._GROUP", 7)
    splits = corpus(tmp_path / "sound")
    here = _features(tmp_path / "here", splits["train"], Workers(1))
    assert len(here) == 1 + 6
    assert _features(tmp_path / "there", splits["train"], cluster) == here

    broken = splits["train"][5]
    clipped = np.clip(20 * burst(5, broken.duration), -1.0, 1.0)
    write(Path(broken.recording.sources[0].source), clipped)
    found = audit(splits, map_tasks=cluster.map)
    assert [(f.defect, f.cut_id) for f in found.findings] == [("clipped", broken.id)]
    assert found.findings == audit(splits).findings


@pytest.mark.slow
def test_a_cluster_of_somebody(cluster: DaskWorkers) -> None:
    list(cluster.map(abs, [1]))
    assert cluster._client is not None
    address = cluster._client.scheduler.address.removeprefix("tcp://")
    with DaskWorkers(1, address) as workers:
        assert list(workers.map(abs, range(-3, 0))) == [3, 2, 1]
    # It goes on when we have gone.
    assert list(cluster.map(abs, [-1])) == [1]
