"""Trainings that are killed with SIGKILL and gone on with, and whether anybody would notice.

`make crash-test` does the same to more trainings, at more and at random moments.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.data.corpora import get_corpus
from tests.crash.plan import kill_and_resume, moments
from tests.crash.trainings import (
    BATCHES_BETWEEN_SAVES,
    TRAININGS,
    ZIPFORMER,
    Training,
    prepare_small_corpora,
)
from tests.crash.verdict import final_digest, num_redone, problems
from tests.crash.watched import (
    BATCH,
    SAVING,
    UNFINISHED,
    VALIDATING,
    CrashTestError,
    Moment,
    Run,
    run_until,
)
from tests.data.corpora.archives import wav_bytes, write_tar

_SMALLEST = Training(
    "smallest",
    (
        *("--preset", "an4", *ZIPFORMER, "--max-duration", "3", "--spec-aug-time-warp-factor", "0"),
        *("--speed-perturb", "no", "--num-epochs", "2", "--tensorboard", "no"),
    ),
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An AN4 of eight noises to learn from, two for dev and one for test."""
    folder = tmp_path / "data"
    folder.mkdir()
    members = {f"an4/{name}": b"text" for name in ("LICENSE", "an4.dic", "an4.phone")}
    table = "file\tsplit\tspeaker\ttext\n"
    # msct is one of the speakers of the dev set.
    speakers = [("train", "fash")] * 8 + [("train", "msct")] * 2 + [("test", "fcaw")]
    for n, (split, speaker) in enumerate(speakers):
        name = f"an4_clstk/{speaker}/an{n}-{speaker}-b.wav"
        members[f"an4/{name}"] = wav_bytes(9600 + 800 * n, 16000, n)
        table += f"{name}\t{split}\t{speaker}\t{('YES', 'NO', 'GO')[n % 3]}\n"
    write_tar(folder / "an4.tar", {"an4/transcripts.tsv": table.encode(), **members})
    get_corpus("an4", folder / "an4").prepare()
    return folder


def test_killed_in_a_save_and_in_a_validation(tmp_path: Path, data_dir: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill_and_resume(_SMALLEST, [], whole, data_dir)
    plan = [
        Moment(f"{SAVING}.+/checkpoint-", 2, writing=f"{UNFINISHED}.pt"),
        Moment(VALIDATING, 1),
    ]
    runs = kill_and_resume(_SMALLEST, plan, killed, data_dir)
    assert [run.is_killed for run in runs] == [True, True, False]
    assert runs[1].resumed_from is not None and runs[1].was_validating
    assert problems(whole, killed, runs, most_redone=BATCHES_BETWEEN_SAVES) == []
    assert final_digest(whole) == final_digest(killed)


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_killed_at_random_moments(tmp_path: Path, training: Training) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    prepare_small_corpora(Path(__file__).parents[2] / "data", data_dir)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill_and_resume(training, [], whole, data_dir)
    runs = kill_and_resume(training, moments(3, training.name), killed, data_dir)
    assert len(runs) > 1
    assert problems(whole, killed, runs, most_redone=BATCHES_BETWEEN_SAVES) == []


# The judges are judged: with folders as a training leaves them, one of them not quite right.


def _finished(exp_dir: Path) -> Path:
    for name, step in (("checkpoint-3.pt", 3), ("epoch-1.pt", 5)):
        checkpoint = {
            "model": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)},
            "optimizer": {"state": [{"step": step, "rms": torch.ones((), dtype=torch.float64)}]},
            "batch_idx_train": step,
        }
        save_checkpoint(exp_dir / name, checkpoint)
    records = [{"kind": "train", "batch": n, "loss": 1 / n} for n in range(1, 6)]
    records.append({"kind": "valid", "batch": 5, "loss": 0.5})
    _write_history(exp_dir, records)
    return exp_dir


def _write_history(exp_dir: Path, records: list[dict[str, Any]]) -> None:
    (exp_dir / "tensorboard").mkdir(exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (exp_dir / "tensorboard" / "history.jsonl").write_text(text)


def _change_history(exp_dir: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    path = exp_dir / "tensorboard" / "history.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    _write_history(exp_dir, records)


def _change_checkpoint(exp_dir: Path, change: Callable[[dict[str, Any]], object]) -> None:
    checkpoint = load_checkpoint(exp_dir / "epoch-1.pt")
    change(checkpoint)
    save_checkpoint(exp_dir / "epoch-1.pt", checkpoint)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda d: None, []),
        (lambda d: (d / "checkpoint-3.pt").unlink(), ["checkpoint-3.pt is in WHOLE only"]),
        (
            lambda d: shutil.copy(d / "epoch-1.pt", d / "epoch-2.pt"),
            ["epoch-2.pt is in KILLED only"],
        ),
        (
            # Equal numbers, other bytes.
            lambda d: _change_checkpoint(d, lambda c: c["model"]["a"][0, 0].neg_()),
            ["epoch-1.pt differs in 1 places, the first is /model/a"],
        ),
        (
            lambda d: _change_checkpoint(d, lambda c: c["model"]["a"][1, 2].add_(1e-6)),
            ["epoch-1.pt differs in 1 places, the first is /model/a"],
        ),
        (
            lambda d: _change_checkpoint(d, lambda c: c["optimizer"]["state"][0].pop("rms")),
            ["epoch-1.pt differs in 1 places, the first is /optimizer/state/0/rms"],
        ),
        (
            lambda d: _change_checkpoint(d, lambda c: c.update(batch_idx_train=5.0)),
            ["epoch-1.pt differs in 1 places, the first is /batch_idx_train"],
        ),
        (
            lambda d: _change_history(d, lambda r: r.insert(2, r[1])),
            ["batch 2 is recorded 2 times", "the histories differ from record 3 on"],
        ),
        (
            lambda d: _change_history(d, lambda r: r.pop(1)),
            ["batch 2 is not recorded", "the histories differ from record 2 on"],
        ),
        (
            lambda d: _change_history(d, lambda r: r.insert(0, r.pop(1))),
            ["batches are not recorded in order", "the histories differ from record 1 on"],
        ),
        (
            lambda d: _change_history(d, lambda r: r.pop()),
            ["the histories differ from record 6 on"],
        ),
        (
            lambda d: _change_history(d, lambda r: r[3].update(loss=0.2500001)),
            ["the histories differ from record 4 on"],
        ),
        (
            lambda d: (d / "tensorboard" / ".tmp-0123abcd-history.jsonl").touch(),
            ["tensorboard/.tmp-0123abcd-history.jsonl was left behind"],
        ),
    ],
)
def test_every_difference_is_found(
    tmp_path: Path, harm: Callable[[Path], object], expected: list[str]
) -> None:
    whole, killed = _finished(tmp_path / "whole"), _finished(tmp_path / "killed")
    harm(killed)
    found = problems(whole, killed, [], most_redone=3)
    short = {str(whole): "WHOLE", str(killed): "KILLED"}
    for path, name in short.items():
        found = [line.replace(path, name) for line in found]
    assert found == expected


def test_the_digest_is_of_all_tensors_of_the_last_epoch(tmp_path: Path) -> None:
    exp_dir = _finished(tmp_path / "exp")
    before = final_digest(exp_dir)
    assert len(before) == 64
    (exp_dir / "checkpoint-3.pt").unlink()
    _change_checkpoint(exp_dir, lambda c: c.update(batch_idx_train=6))
    assert final_digest(exp_dir) == before
    _change_checkpoint(exp_dir, lambda c: c["optimizer"]["state"][0]["rms"].add_(2**-52))
    assert final_digest(exp_dir) != before


def _run(num_batches: int, resumed_from: Path | None = None, *, is_killed: bool = True) -> Run:
    lines = [] if resumed_from is None else [f"INFO Resuming from {resumed_from}"]
    lines += ["INFO Epoch 1, batch 0, loss[loss=1.0"] * num_batches
    return Run(tuple(lines), None, is_killed)


def test_batches_that_are_redone(tmp_path: Path) -> None:
    exp_dir = _finished(tmp_path / "exp")
    save, epoch = exp_dir / "checkpoint-3.pt", exp_dir / "epoch-1.pt"
    runs = [
        _run(0),  # killed before anything was known
        _run(4),
        _run(0),
        _run(2, save),  # batches 4 and 5; 4 was done
        _run(0, epoch),
        _run(4, epoch),
        _run(2, epoch, is_killed=False),
    ]
    assert num_redone(runs) == [0, 0, 0, 1, 0, 0, 4]
    found = problems(exp_dir, exp_dir, runs, most_redone=3)
    assert found == ["process 7 redid 4 batches, saves are 3 apart"]
    # A checkpoint ahead of the batches before it would be from elsewhere.
    assert problems(exp_dir, exp_dir, [_run(1), _run(1, save)], most_redone=3) == [
        "process 2 redid -2 batches, saves are 3 apart"
    ]


@pytest.mark.parametrize(
    ("last", "is_validating"),
    [
        ("Computing validation loss", True),
        ("Epoch 1, validation: loss=1.0", False),
        ("Saving checkpoint to epoch-1.pt", False),
        ("Epoch 2, batch 0, an4_loss[loss=1.0", False),
    ],
)
def test_what_a_killed_run_was_doing(last: str, is_validating: bool) -> None:
    lines = ("Epoch 1, batch 0, loss[1", "Computing validation loss", last, "WARNING whatever")
    assert Run(lines, None, is_killed=True).was_validating is is_validating
    assert not Run(lines, None, is_killed=False).was_validating
    unfinished = frozenset({".tmp-0123abcd-epoch-1.pt"})
    assert Run(lines, None, is_killed=True, unfinished=unfinished).was_saving
    unfinished = frozenset({"lang/.tmp-0123abcd-tokens.txt"})
    assert not Run(lines, None, is_killed=True, unfinished=unfinished).was_saving


def test_moments_follow_from_the_seed() -> None:
    assert moments(12, "a") == moments(12, "a") != moments(12, "b")
    # Of any six each is of another kind; two of them are in saves of checkpoints.
    for seed in "abc":
        assert sum(moment.writing == f"{UNFINISHED}.pt" for moment in moments(6, seed)) == 2
        assert len({moment.pattern for moment in moments(6, seed)}) == 6


def test_a_training_that_fails_by_itself(tmp_path: Path) -> None:
    command = ("train", "--preset", "klingon")
    with pytest.raises(CrashTestError, match=r"exit code 2.*\n(.*\n)*.*klingon"):
        run_until(Moment(BATCH, 1), command, tmp_path, tmp_path / "log")
    assert "klingon" in (tmp_path / "log").read_text()


def test_no_process_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of snowmelt a parent with a child, both of which would stay for ever.
    (tmp_path / "snowmelt.py").write_text(
        "import os, time\n"
        "name = 'parent' if os.fork() else 'child'\n"
        "os.write(1, f'{name} {os.getpid()}\\n'.encode())\n"  # in one piece
        "time.sleep(1000)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = run_until(Moment("child|parent", 2), (), tmp_path, tmp_path / "log")
    assert run.is_killed and len(run.lines) == 2
    deadline = time.monotonic() + 60.0
    # A process that has been killed dies when it is its turn on a busy machine.
    while alive := [line for line in run.lines if _is_alive(int(line.split()[1]))]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A dead one may still be listed until its parent, now the system, has looked at it.
    return stat.rpartition(")")[2].split()[0] not in "ZX"
