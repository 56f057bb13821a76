"""Records of a run, and what survives a kill."""

from pathlib import Path

from snowmelt.train.history import History, draw_curves, read_history
from snowmelt.train.metrics import LossTotals

TOTALS = LossTotals(loss=5.0, simple_loss=8.0, pruned_loss=2.0, frames=10.0, utterances=2.0)


def _write(exp_dir: Path, first: int, last: int, done: int) -> None:
    with History(exp_dir, done=done, is_main=True, tensorboard=False) as history:
        for batch in range(first, last + 1):
            history.batch(batch, 1, TOTALS, 0.01)


def test_every_batch_counts_once_after_a_resume(tmp_path: Path) -> None:
    _write(tmp_path, 1, 5, done=0)
    _write(tmp_path, 4, 6, done=3)
    assert [r["batch"] for r in read_history(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_new_run_forgets_the_old_one(tmp_path: Path) -> None:
    _write(tmp_path, 1, 5, done=0)
    _write(tmp_path, 1, 2, done=0)
    assert [r["batch"] for r in read_history(tmp_path)] == [1, 2]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path, 1, 2, done=0)
    path = tmp_path / "tensorboard" / "history.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "ba')
    assert len(read_history(tmp_path)) == 2


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with History(tmp_path, done=0, is_main=False, tensorboard=True) as history:
        history.batch(1, 1, TOTALS, 0.01)
    assert not list(tmp_path.iterdir())


def test_curves_become_a_picture(tmp_path: Path) -> None:
    with History(tmp_path, done=0, is_main=True, tensorboard=False) as history:
        for batch in range(1, 4):
            history.batch(batch, 1, TOTALS, 0.01)
        history.validation(3, 1, TOTALS)
    draw_curves(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
