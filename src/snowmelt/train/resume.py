"""Where does a run stand? Everything that must survive a kill, saved and loaded as one.

Random numbers need no state here: they are functions of (seed, batch number) or of (seed, epoch,
utterance), see `seed_batch`.

Invariant: a checkpoint holds plain types only and appears whole or not at all; a run that goes on
from it computes what it would have computed without the interruption.
"""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from snowmelt.checkpoint.average import update_averaged_model
from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.core.config import to_dict
from snowmelt.core.errors import CheckpointError
from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.regularisers import (
    load_regulariser_state,
    regulariser_state,
    set_batch_count,
)
from snowmelt.optim.eden import Eden
from snowmelt.optim.eve import Eve
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.train.checkpoints import (
    SettingRules,
    check_settings,
    fitting,
    flat_settings,
    own_part,
)
from snowmelt.train.distributed import Ranks
from snowmelt.train.metrics import LossTotals
from snowmelt.train.objective import TransducerObjective
from snowmelt.train.precision import Precision

__all__ = [
    "Optimizer",
    "Progress",
    "TrainState",
    "seed_batch",
]

Optimizer = ScaledAdam | Eve

# Far enough apart that no batch of one rank draws what a batch of another rank drew.
_RANK_STRIDE: Final = 1_000_000_007
_SEED_STRIDE: Final = 1_000_003
_MICRO_BATCH_STRIDE: Final = 20_000_000_000_003

_RULES: Final = SettingRules(
    of_the_weights=("model.", "features.", "min_tail_s", "train.optimizer"),
    of_the_batches=("data.", "train.seed", "train.target_duration", "world_size"),
    of_no_influence=(
        "version",
        "data.dev_parts",
        "data.num_workers",
        "data.test_parts",
        "train.keep_last_k",
        "train.log_interval",
        "train.num_epochs",
        "train.save_every_n",
        "train.valid_interval",
    ),
)


@dataclass
class Progress:
    """Position in the run: `batch_idx_train` steps done in all, `batch` of them in this epoch.

    `epoch` counts from 1; when an epoch is complete it is the next one, with `batch` 0.
    `positions` says where the other corpora of a mix stood when this epoch began: corpus -> its own
    epoch, and how many batches of that one are used.
    """

    epoch: int = 1
    batch: int = 0
    batch_idx_train: int = 0
    best_train_loss: float = float("inf")
    best_valid_loss: float = float("inf")
    best_train_epoch: int = -1
    best_valid_epoch: int = -1
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def first_step(self) -> int:
        """Steps of the run before this epoch."""
        return self.batch_idx_train - self.batch


class TrainState:
    """Model, averaged model, optimiser, scheduler, loss scale and position of one run.

    Args:
        objective: holds the model that is trained and the auxiliary heads.
        optimizer: over the parameters of `objective`.
        scheduler: learning rates.
        precision: holds the scale of the loss, where there is one.
        config: settings; its flat options go into the checkpoint as the original's do.
        ranks: this process among all; only the main one keeps the running mean of the model.
    """

    def __init__(
        self,
        objective: TransducerObjective,
        optimizer: Optimizer,
        scheduler: Eden,
        precision: Precision,
        config: ExperimentConfig,
        ranks: Ranks,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.precision = precision
        self.config = config
        self.ranks = ranks
        self.progress = Progress()
        # Of this process's batches, decayed: of all corpora under "", of each of several by label.
        self.totals = {"": LossTotals()}
        # Counts of utterances that were left out, see `BadUtterances`.
        self.bad_utterances: dict[str, float] = {}
        # Float64 throughout: a mean over thousands of updates loses digits in float32.
        self.model_avg: nn.Module | None = (
            copy.deepcopy(objective.model).to(torch.float64) if ranks.is_main else None
        )
        self.set_batch_count()

    def begin_step(self) -> int:
        """Count a step that begins, and return its number, from 1."""
        self.progress.batch_idx_train += 1
        encoder = self.objective.model.encoder
        if isinstance(encoder, Lstm):
            warm_step = self.config.train.scaled(self.config.train.model_warm_step)
            encoder.warmup = self.progress.batch_idx_train / warm_step
        return self.progress.batch_idx_train

    def set_batch_count(self) -> None:
        """Tell the model's schedules how many batches of a full-size run are done."""
        scale = self.config.train.schedule_scale
        set_batch_count(self.objective.model, self.progress.batch_idx_train / scale)

    def update_average(self) -> None:
        """Take the model into its running mean when a period is complete."""
        period = self.config.train.scaled_period(self.config.train.average_period)
        done = self.progress.batch_idx_train
        if self.model_avg is not None and done % period == 0:
            update_averaged_model(
                model_cur=self.objective.model,
                model_avg=self.model_avg,
                batch_idx_train=done,
                average_period=period,
            )

    def rank_state(self) -> dict[str, Any]:
        """What differs between processes: the regularisers' counts, and what they have seen."""
        return {
            "regularisers": regulariser_state(self.objective.model),
            "totals": {label: list(totals.values()) for label, totals in self.totals.items()},
            "bad_utterances": dict(self.bad_utterances),
        }

    def save(self, path: Path, rank_states: Sequence[Mapping[str, Any]]) -> None:
        """Write a checkpoint; only the main process can.

        Args:
            path: the file.
            rank_states: `rank_state()` of all processes, in order.

        Raises:
            UserError: the file cannot be written.
        """
        assert self.model_avg is not None, "only the process that keeps the average saves"
        train, progress = self.config.train, self.progress
        average = self.model_avg.state_dict()
        save_checkpoint(
            path,
            {
                # The original's flat options.
                **asdict(train),
                # In batches of this run: what averaging checkpoints must know.
                "average_period": train.scaled_period(train.average_period),
                "batch_idx_train": progress.batch_idx_train,
                "cur_epoch": progress.epoch,
                "best_train_loss": progress.best_train_loss,
                "best_valid_loss": progress.best_valid_loss,
                "best_train_epoch": progress.best_train_epoch,
                "best_valid_epoch": progress.best_valid_epoch,
                "model": self.objective.model.state_dict(),
                "model_avg": {
                    k: v.float() if v.is_floating_point() else v for k, v in average.items()
                },
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "grad_scaler": self.precision.state_dict(),
                "sampler": {"epoch": progress.epoch, "batch": progress.batch},
                "snowmelt": {
                    "config": to_dict(self.config),
                    "model_avg": average,
                    "progress": _plain_progress(progress),
                    "ranks": list(rank_states),
                    "auxiliary_heads": self.objective.heads.state_dict(),
                },
            },
        )

    def load(self, saved: Mapping[str, Any], path: Path) -> None:
        """Go on from a checkpoint of the same run.

        Args:
            saved: what `load_checkpoint` gave.
            path: where it came from, for messages.

        Settings that decide the model must be those of the run; inside an epoch also those that
        decide its batches, and the number of processes. Others may change, which is logged.

        Raises:
            CheckpointError: the file is damaged, or was written by another kind of run.
        """
        ours = own_part(saved, path)
        with fitting(path):
            progress, rank_states = Progress(**ours["progress"]), ours["ranks"]
            progress.positions = {k: (v[0], v[1]) for k, v in progress.positions.items()}
            self._check_settings(path, ours["config"], progress, len(rank_states))
            self.objective.model.load_state_dict(saved["model"], strict=True)
            if self.model_avg is not None:
                self.model_avg.load_state_dict(ours["model_avg"], strict=True)
            self.objective.heads.load_state_dict(ours["auxiliary_heads"], strict=True)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scheduler.load_state_dict(saved["scheduler"])
            self.precision.load_state_dict(saved["grad_scaler"])
            # At the start of an epoch there may be other processes than those that saved.
            mine = rank_states[min(self.ranks.rank, len(rank_states) - 1)]
            load_regulariser_state(self.objective.model, mine["regularisers"])
            self.progress = progress
            self.totals = {label: LossTotals(*sums) for label, sums in mine["totals"].items()}
            self.bad_utterances = dict(mine["bad_utterances"])
        # The saved states bring their settings along; what the user asks for now goes before.
        self.scheduler.set_base_lr(self.config.train.base_lr)
        if isinstance(self.optimizer, ScaledAdam):
            for group in self.optimizer.param_groups:
                group["clipping_scale"] = self.config.train.clipping_scale
        self.set_batch_count()

    def _check_settings(
        self, path: Path, saved_config: Mapping[str, Any], progress: Progress, world_size: int
    ) -> None:
        before = {**flat_settings(saved_config), "world_size": world_size}
        now = {**flat_settings(to_dict(self.config)), "world_size": self.ranks.world_size}
        if _heads(before) != _heads(now):
            raise CheckpointError(
                f"{path} has other decoders or auxiliary heads than this run",
                hint="resume with the --mix, --ctc-loss-scale and --frame-loss-scale it was "
                "started with, or start a new run with another --exp-dir",
            )
        check_settings(
            path,
            before,
            now,
            _RULES,
            is_inside_epoch=progress.batch > 0,
            is_main=self.ranks.is_main,
        )


def seed_batch(seed: int, batch_idx_train: int, rank: int, micro_batch: int = 0) -> None:
    """Make all random draws of one batch a function of (seed, step, rank, batch in the step).

    Structural draws (which layer is skipped, which chunk length) come from Python's generator and
    are equal on all ranks, so that no rank waits for another; dropout differs.
    """
    base = seed * _SEED_STRIDE + batch_idx_train + micro_batch * _MICRO_BATCH_STRIDE
    random.seed(base)
    torch.manual_seed(base + rank * _RANK_STRIDE)


def _plain_progress(progress: Progress) -> dict[str, Any]:
    return {**asdict(progress), "positions": {k: list(v) for k, v in progress.positions.items()}}


def _heads(flat: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which decoders and auxiliary heads a run with these settings has."""
    others = tuple(part["corpus"] for part in (flat.get("data.mix") or ())[1:])
    return others, *(flat.get(f"train.{name}_loss_scale", 0.0) > 0.0 for name in ("ctc", "frame"))
