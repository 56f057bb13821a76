"""Where a run stands: which checkpoint is the newest, and which settings may change on the way."""

import logging
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.core.errors import CheckpointError
from snowmelt.presets.data import MixPart
from snowmelt.train.build import new_state
from snowmelt.train.checkpoints import newest_checkpoint, set_aside_later
from snowmelt.train.distributed import Ranks
from snowmelt.train.metrics import LossTotals
from snowmelt.train.resume import Progress, TrainState, seed_batch
from tests.train.checkpoints import differences, write_position

VOCAB = 6
MIX = (MixPart("noise", 0.5), MixPart("murmur", 0.5))


def _state(config: ExperimentConfig, ranks: Ranks | None = None) -> TrainState:
    torch.manual_seed(1)
    return new_state(config, VOCAB, torch.device("cpu"), ranks or Ranks())


def _load(state: TrainState, path: Path) -> None:
    state.load(load_checkpoint(path), path)


def _saved(
    folder: Path, config: ExperimentConfig, *, batch: int = 0, name: str = "epoch-1.pt"
) -> Path:
    state = _state(config)
    state.progress = Progress(
        epoch=2, batch=batch, batch_idx_train=10, positions={"gigaspeech": (3, 5)}
    )
    state.scheduler.step_batch(10)
    state.totals = {"": LossTotals(loss=1.0, frames=2.0), "giga": LossTotals(loss=3.0)}
    state.bad_utterances = {"num_bad": 2.0}
    state.save(folder / name, [state.rank_state()])
    return folder / name


@pytest.mark.parametrize(
    ("files", "newest"),
    [
        ({}, None),
        ({"epoch-2.pt": (3, 20), "epoch-10.pt": (11, 100)}, "epoch-10.pt"),
        ({"epoch-2.pt": (3, 20), "checkpoint-25.pt": (3, 25)}, "checkpoint-25.pt"),
        ({"epoch-2.pt": (3, 20), "checkpoint-15.pt": (2, 15)}, "epoch-2.pt"),
        # Written at the same batch: the epoch is complete in one of them only.
        ({"epoch-2.pt": (3, 20), "checkpoint-20.pt": (2, 20)}, "epoch-2.pt"),
        ({"checkpoint-9.pt": (1, 9), "checkpoint-10.pt": (1, 10)}, "checkpoint-10.pt"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_newest_has_most_batches_behind_it(
    tmp_path: Path, files: dict[str, tuple[int, int]], newest: str | None, is_reversed: bool
) -> None:
    for n, (name, position) in enumerate(files.items()):
        write_position(tmp_path / name, *position)
        # Whatever the files' times say: copies have any.
        seconds = 1_000_000 + (-n if is_reversed else n)
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "best-valid-loss.pt").write_text("is not looked at")
    expected = None if newest is None else tmp_path / newest
    assert newest_checkpoint(tmp_path) == expected


def test_checkpoint_of_somebody_else_is_refused(tmp_path: Path, config: ExperimentConfig) -> None:
    save_checkpoint(tmp_path / "epoch-3.pt", {"model": {"a": torch.ones(2)}})
    for use in (
        lambda: newest_checkpoint(tmp_path),
        lambda: _load(_state(config), tmp_path / "epoch-3.pt"),
    ):
        with pytest.raises(CheckpointError, match="was not written by snowmelt"):
            use()


def test_all_comes_back(tmp_path: Path, config: ExperimentConfig) -> None:
    path = _saved(tmp_path, config, batch=3)
    state = _state(config)
    _load(state, path)
    assert (state.progress.epoch, state.progress.batch, state.progress.first_step) == (2, 3, 7)
    assert state.progress.positions == {"gigaspeech": (3, 5)}
    assert state.totals == {"": LossTotals(loss=1.0, frames=2.0), "giga": LossTotals(loss=3.0)}
    assert state.bad_utterances == {"num_bad": 2.0}
    again = tmp_path / "again.pt"
    state.save(again, [state.rank_state()])
    assert not differences(load_checkpoint(again), load_checkpoint(path))


def test_only_the_main_process_keeps_an_average(config: ExperimentConfig) -> None:
    assert _state(config).model_avg is not None
    other = _state(config, Ranks(1, 2))
    assert other.model_avg is None
    other.update_average()


@pytest.mark.parametrize(
    ("batch", "changes", "message"),
    [
        (0, {"model": {"context_size": 3}}, r"model\.context_size is 2, here it is 3"),
        (0, {"features": {"low_freq": 50.0}}, r"features\.low_freq is 20\.0, here it is 50\.0"),
        (0, {"vocabulary_hash": "f00"}, r"another vocabulary \(hint: --bpe-model .*/lang takes"),
        (0, {"train": {"ctc_loss_scale": 0.0}}, "has other decoders or auxiliary heads"),
        (0, {"data": {"mix": MIX}}, "has other decoders or auxiliary heads"),
        (
            4,
            {"data": {"max_duration": 2.0}},
            r"middle of an epoch whose data\.max_duration is 3\.0",
        ),
        (4, {"train": {"seed": 8}}, r"middle of an epoch whose train\.seed is 7, here it is 8"),
    ],
)
def test_settings_that_must_not_change(
    tmp_path: Path, config: ExperimentConfig, batch: int, changes: dict[str, object], message: str
) -> None:
    path = _saved(tmp_path, config, batch=batch)
    with pytest.raises(CheckpointError, match=message):
        _load(_state(_changed(config, changes)), path)


def _changed(config: ExperimentConfig, changes: dict[str, object]) -> ExperimentConfig:
    values = {
        name: replace(getattr(config, name), **change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(config, **values)  # type: ignore[arg-type]


def test_settings_that_may_change_are_obeyed_and_logged(
    tmp_path: Path, config: ExperimentConfig, caplog: pytest.LogCaptureFixture
) -> None:
    path = _saved(tmp_path, config)
    changes = {"base_lr": 0.02, "clipping_scale": 4.0, "num_epochs": 99, "seed": 8}
    state = _state(_changed(config, {"train": changes, "data": {"max_duration": 2.0}}))
    with caplog.at_level(logging.WARNING):
        _load(state, path)
    assert caplog.messages == [
        "data.max_duration was 3.0 so far, from here on it is 2.0",
        "train.base_lr was 0.05 so far, from here on it is 0.02",
        "train.clipping_scale was 2.0 so far, from here on it is 4.0",
        "train.seed was 7 so far, from here on it is 8",
    ]
    assert state.scheduler.base_lrs == [0.02]
    assert state.optimizer.param_groups[0]["clipping_scale"] == 4.0


@pytest.mark.parametrize("key", ["progress", "ranks", "model_avg", "config"])
def test_checkpoint_in_which_something_is_missing(
    tmp_path: Path, config: ExperimentConfig, key: str
) -> None:
    saved = load_checkpoint(_saved(tmp_path, config))
    del saved["snowmelt"][key]
    save_checkpoint(tmp_path / "epoch-1.pt", saved)
    with pytest.raises(CheckpointError, match=f"does not fit this run: '{key}'"):
        _load(_state(config), tmp_path / "epoch-1.pt")


def test_draws_of_a_batch_follow_from_its_number() -> None:
    def draws(seed: int, batch: int, rank: int, micro_batch: int = 0) -> tuple[float, float]:
        seed_batch(seed, batch, rank, micro_batch)
        return random.random(), float(torch.rand(()))

    assert draws(1, 5, 0) == draws(1, 5, 0)
    structure, masks = zip(*(draws(1, 5, rank) for rank in range(3)), strict=True)
    assert len(set(structure)) == 1  # layers that all skip or none
    assert len(set(masks)) == 3
    numbers = range(3)
    all_draws = {draws(s, b, 0, m) for s in numbers for b in numbers for m in numbers}
    assert len(all_draws) == 27
    # Nor do a rank's draws meet those of another's place in a step.
    masks = [draws(1, b, rank, m)[1] for b in range(4) for rank in range(4) for m in range(3)]
    assert len(set(masks)) == len(masks)


def test_who_goes_back_leaves_the_later_checkpoints_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    positions = {"epoch-1.pt": (2, 10), "checkpoint-10.pt": (1, 10), "checkpoint-15.pt": (2, 15)}
    for name, position in {**positions, "epoch-2.pt": (3, 20)}.items():
        write_position(tmp_path / name, *position)
    set_aside_later(tmp_path, tmp_path / "epoch-2.pt")
    assert not list(tmp_path.glob("superseded-*"))
    set_aside_later(tmp_path, tmp_path / "epoch-1.pt")
    assert {p.name for p in tmp_path.glob("*.pt")} == {"epoch-1.pt", "checkpoint-10.pt"}
    (folder,) = tmp_path.glob("superseded-*")
    assert {p.name for p in folder.iterdir()} == {"checkpoint-15.pt", "epoch-2.pt"}
    assert caplog.messages == [f"Going back to epoch-1.pt: 2 later checkpoints are now in {folder}"]
