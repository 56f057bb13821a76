"""Where does a run stand? Everything that must survive a kill, saved and loaded as one.

Random numbers need no state here: they are functions of (seed, batch number) or of (seed, epoch,
utterance), see `seed_batch`.

Invariant: a checkpoint holds plain types only and appears whole or not at all.
"""

import copy
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from snowmelt.checkpoint.average import update_averaged_model
from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.core.errors import CheckpointError
from snowmelt.models.regularisers import (
    load_regulariser_state,
    regulariser_state,
    set_batch_count,
)
from snowmelt.optim.eden import Eden
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.train.metrics import LossTotals
from snowmelt.train.objective import TransducerObjective

__all__ = ["Progress", "TrainState", "newest_checkpoint", "seed_batch"]

# Far enough apart that no batch of one rank draws what a batch of another rank drew.
_RANK_STRIDE: Final = 1_000_000_007
_SEED_STRIDE: Final = 1_000_003


@dataclass
class Progress:
    """Position in the run: `batch_idx_train` batches done in all, `batch` of them in this epoch.

    `epoch` counts from 1. `totals` are the decayed losses of the log.
    """

    epoch: int = 1
    batch: int = 0
    batch_idx_train: int = 0
    best_train_loss: float = float("inf")
    best_valid_loss: float = float("inf")
    best_train_epoch: int = -1
    best_valid_epoch: int = -1


class TrainState:
    """Model, averaged model, optimiser, scheduler and position of one run.

    Args:
        objective: holds the model that is trained and the auxiliary heads.
        optimizer: over the parameters of `objective`.
        scheduler: learning rates.
        config: settings; its flat options go into the checkpoint as the original's do.
        keeps_average: whether this process keeps the running mean of the model.
    """

    def __init__(
        self,
        objective: TransducerObjective,
        optimizer: ScaledAdam,
        scheduler: Eden,
        config: ExperimentConfig,
        *,
        keeps_average: bool,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.config = config
        self.progress = Progress()
        self.totals = LossTotals()
        # Float64 throughout: a mean over thousands of updates loses digits in float32.
        self.model_avg: nn.Module | None = (
            copy.deepcopy(objective.model).to(torch.float64) if keeps_average else None
        )
        self.set_batch_count()

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

    def save(self, path: Path, rank_states: list[dict[str, float]]) -> None:
        """Write a checkpoint; `rank_states` are the regularisers' states of all ranks."""
        if self.model_avg is None:
            raise AssertionError("only the process that keeps the average saves")
        train = self.config.train
        average = self.model_avg.state_dict()
        options: dict[str, Any] = {
            **asdict(train),
            "batch_idx_train": self.progress.batch_idx_train,
            "cur_epoch": self.progress.epoch,
            "best_train_loss": self.progress.best_train_loss,
            "best_valid_loss": self.progress.best_valid_loss,
            "best_train_epoch": self.progress.best_train_epoch,
            "best_valid_epoch": self.progress.best_valid_epoch,
            # In batches of this run: what averaging checkpoints must know.
            "average_period": train.scaled_period(train.average_period),
        }
        save_checkpoint(
            path,
            {
                **options,
                "model": self.objective.model.state_dict(),
                "model_avg": {
                    k: v.float() if v.is_floating_point() else v for k, v in average.items()
                },
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "grad_scaler": None,
                "sampler": {"epoch": self.progress.epoch, "batch": self.progress.batch},
                "snowmelt": {
                    "version": self.config.version,
                    "model_avg": average,
                    "progress": asdict(self.progress),
                    "totals": list(self.totals.values()),
                    "regularisers": rank_states,
                    "auxiliary_heads": self.objective.heads.state_dict(),
                },
            },
        )

    def load(self, path: Path, rank: int) -> None:
        """Go on from a checkpoint of the same run.

        Raises:
            CheckpointError: the file is damaged, or was written by another kind of run.
        """
        saved = load_checkpoint(path)
        ours = saved.get("snowmelt")
        if not isinstance(ours, dict):
            raise CheckpointError(
                f"{path} was not written by snowmelt, a run cannot be resumed from it",
                hint="start a new run with another --exp-dir",
            )
        try:
            self.objective.model.load_state_dict(saved["model"], strict=True)
            if self.model_avg is not None:
                self.model_avg.load_state_dict(ours["model_avg"], strict=True)
            self.objective.heads.load_state_dict(ours["auxiliary_heads"], strict=True)
            self.optimizer.load_state_dict(saved["optimizer"])
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            first_line = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path} does not fit this model: {first_line}",
                hint="resume with the settings the run was started with",
            ) from error
        self.scheduler.load_state_dict(saved["scheduler"])
        self.progress = Progress(**ours["progress"])
        self.totals = LossTotals(*ours["totals"])
        states = ours["regularisers"]
        load_regulariser_state(self.objective.model, states[min(rank, len(states) - 1)])
        self.set_batch_count()

    def regulariser_state(self) -> dict[str, float]:
        """State of this process's regularisers that is no tensor of the model."""
        return regulariser_state(self.objective.model)


def seed_batch(seed: int, batch_idx_train: int, rank: int) -> None:
    """Make all random draws of one batch a function of (seed, batch number, rank).

    Structural draws (which layer is skipped, which chunk length) come from Python's generator and
    are equal on all ranks, so that no rank waits for another; dropout differs.
    """
    base = seed * _SEED_STRIDE + batch_idx_train
    random.seed(base)
    torch.manual_seed(base + rank * _RANK_STRIDE)


def newest_checkpoint(exp_dir: Path) -> Path | None:
    """The checkpoint of `exp_dir` with the most batches behind it, by modification order.

    Epoch and batch checkpoints number different things, so the file's time decides; files are
    renamed into place when they are complete, hence the newest is whole.
    """
    files = [*exp_dir.glob("epoch-*.pt"), *exp_dir.glob("checkpoint-*.pt")]
    return max(files, key=lambda p: p.stat().st_mtime_ns, default=None)
