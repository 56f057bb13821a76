"""Records of a run, and what survives a kill."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snowmelt.train.history import History, draw_curves, read_history
from snowmelt.train.metrics import LossTotals

TOTALS = LossTotals(loss=5.0, simple_loss=8.0, pruned_loss=2.0, frames=10.0, utterances=2.0)


def _history(exp_dir: Path, done: int = 0, epoch: int = 1, tensorboard: bool = False) -> History:
    return History(exp_dir, done=done, epoch=epoch, is_main=True, tensorboard=tensorboard)


def _write(exp_dir: Path, first: int, last: int, done: int) -> None:
    with _history(exp_dir, done) as history:
        for batch in range(first, last + 1):
            history.batch(batch, 1, TOTALS, 0.01)


def test_every_batch_counts_once_after_a_resume(tmp_path: Path) -> None:
    _write(tmp_path, 1, 5, done=0)
    _write(tmp_path, 4, 6, done=3)
    assert [r["batch"] for r in read_history(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_an_epoch_that_is_validated_again_counts_once(tmp_path: Path) -> None:
    with _history(tmp_path) as history:
        history.batch(1, 1, TOTALS, 0.01)
        history.validation(1, 1, TOTALS)
    kinds = {1: ["train"], 2: ["train", "valid"]}
    for epoch, expected in reversed(kinds.items()):
        # Going on with epoch 2: epoch 1 is complete. Going on with epoch 1: all but validated.
        with _history(tmp_path, done=1, epoch=epoch):
            assert [r["kind"] for r in read_history(tmp_path)] == expected


def test_a_new_run_forgets_the_old_one(tmp_path: Path) -> None:
    _write(tmp_path, 1, 5, done=0)
    _write(tmp_path, 1, 2, done=0)
    assert [r["batch"] for r in read_history(tmp_path)] == [1, 2]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path, 1, 2, done=0)
    path = tmp_path / "tensorboard" / "history.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "ba')
    assert len(read_history(tmp_path)) == 2


def test_records_are_on_disk_before_the_checkpoint(tmp_path: Path) -> None:
    with _history(tmp_path) as history:
        history.batch(1, 1, TOTALS, 0.01)
        history.sync()
        (line,) = (tmp_path / "tensorboard" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == 0.5


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with History(tmp_path, done=0, epoch=1, is_main=False, tensorboard=True) as history:
        history.batch(1, 1, TOTALS, 0.01)
        history.point(1, 1, current=TOTALS, totals={"": TOTALS}, lr=0.01)
        history.validation(1, 1, TOTALS)
        history.sync()
    assert not list(tmp_path.iterdir())


def test_a_validation_inside_an_epoch_is_kept(tmp_path: Path) -> None:
    with _history(tmp_path) as history:
        history.batch(1, 1, TOTALS, 0.01)
        history.validation(1, 1, TOTALS, mid_epoch=True)
        history.batch(2, 1, TOTALS, 0.01)
        history.validation(2, 1, TOTALS, mid_epoch=True)
    with _history(tmp_path, done=1, epoch=1):
        assert [(r["kind"], r["batch"]) for r in read_history(tmp_path)] == [
            ("train", 1),
            ("valid", 1),
        ]


LOSSES = ("loss", "simple_loss", "pruned_loss")
SHAPE = ("utt_duration", "utt_pad_proportion")


def _tags(*prefixes: str, names: tuple[str, ...] = (*LOSSES, *SHAPE)) -> set[str]:
    return {f"train/{prefix}_{name}" for prefix in prefixes for name in names}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside TensorBoard
def test_tensorboard_tags_are_the_originals(tmp_path: Path) -> None:
    with _history(tmp_path, tensorboard=True) as history:
        history.point(7, 2, current=TOTALS, totals={"": TOTALS + TOTALS}, lr=0.03)
        history.validation(9, 2, TOTALS)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    expected = _tags("current", "tot") | _tags("valid", names=LOSSES)
    assert set(events.Tags()["scalars"]) == expected | {"train/learning_rate", "train/epoch"}
    (rate,) = events.Scalars("train/learning_rate")
    assert rate.step == 7 and rate.value == pytest.approx(0.03)
    (valid,) = events.Scalars("train/valid_loss")
    assert valid.step == 9 and valid.value == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside TensorBoard
def test_several_corpora_have_curves_of_their_own(tmp_path: Path) -> None:
    totals = {"": TOTALS, "libri": TOTALS, "giga": TOTALS}
    with _history(tmp_path, tensorboard=True) as history:
        history.batch(7, 2, TOTALS, 0.03, label="giga")
        history.point(7, 2, current=TOTALS, totals=totals, lr=0.03, label="giga", grad_scale=8.0)
        history.validation(9, 2, TOTALS, label="giga")
    assert [r["corpus"] for r in read_history(tmp_path)] == ["giga", "giga"]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    expected = _tags("current_giga", "tot", "libri_tot", "giga_tot")
    expected |= _tags("valid_giga", names=LOSSES)
    expected |= {"train/learning_rate", "train/epoch", "train/grad_scale"}
    assert set(events.Tags()["scalars"]) == expected


def test_curves_become_a_picture(tmp_path: Path) -> None:
    with _history(tmp_path) as history:
        for batch in range(1, 4):
            history.batch(batch, 1, TOTALS, 0.01)
        history.validation(3, 1, TOTALS)
    draw_curves(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
