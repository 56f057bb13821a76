"""What is the learning rate of batch b in epoch e? The Eden schedule.

    lr = base * ((b² + B²) / B²)^(-1/4) * ((e² + E²) / E²)^(-1/4) * warm-up(b)

with B = lr_batches and E = lr_epochs; b counts from the start of training, e from 0. The warm-up
factor rises linearly from warmup_start to 1 during the first warmup_batches batches.

Invariant: the rate depends on (base, b, e) only, not on how they were reached.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/optim.py, Eden (with warm-up) and
egs/librispeech/ASR/pruned_transducer_stateless2/optim.py, Eden (without: warmup_batches 0).
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import Optimizer

from snowmelt.core.errors import CheckpointError, ConfigError

__all__ = ["Eden"]


class Eden:
    """Sets the learning rate of every parameter group of an optimiser.

    The rate is set by `step_batch` and `step_epoch`; before the first call it is the base rate.

    Args:
        optimizer: its groups' `lr` is the base rate, kept in each group under `base_lr_key`.
        lr_batches: B, the batch number around which the rate begins to fall.
        lr_epochs: E, the same for epochs.
        warmup_batches: length of the warm-up; 0: none.
        warmup_start: factor at batch 0.
        base_lr_key: the group's name for the base rate: the one in the checkpoints of the recipe,
            `base_lr` with ScaledAdam and `initial_lr` with Eve.

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
        *,
        base_lr_key: Literal["base_lr", "initial_lr"] = "base_lr",
    ) -> None:
        if lr_batches <= 0 or lr_epochs <= 0:
            raise ConfigError(
                f"lr_batches and lr_epochs must be > 0, got {lr_batches} and {lr_epochs}"
            )
        if warmup_batches < 0 or not 0 <= warmup_start <= 1:
            raise ConfigError(
                "warmup_batches must be >= 0 and warmup_start in [0, 1], "
                f"got {warmup_batches} and {warmup_start}"
            )
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.base_lr_key = base_lr_key
        self.epoch = 0
        self.batch = 0
        self.base_lrs: list[float] = [
            group.setdefault(base_lr_key, group["lr"]) for group in optimizer.param_groups
        ]

    def step_batch(self, batch: int | None = None) -> None:
        """Set the rate for `batch` (from the start of training), by default the next one.

        To be called before `optimizer.step`.
        """
        self.batch = self.batch + 1 if batch is None else batch
        self._set_lr()

    def step_epoch(self, epoch: int | None = None) -> None:
        """Set the rate for `epoch` (0-based), by default the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_lr()

    def set_base_lr(self, base_lr: float) -> None:
        """Replace the base rate of all groups, for example after loading a state with another."""
        if base_lr < 0:
            raise ConfigError(f"base_lr must be >= 0, got {base_lr}")
        self.base_lrs = [base_lr] * len(self.base_lrs)
        for group in self.optimizer.param_groups:
            group[self.base_lr_key] = base_lr
        self._set_lr()

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the present batch and epoch."""
        by_batch = ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.25
        by_epoch = ((self.epoch**2 + self.lr_epochs**2) / self.lr_epochs**2) ** -0.25
        factor = by_batch * by_epoch * self._warmup()
        return [base_lr * factor for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The base rates and the position; the other options are not saved."""
        return {"base_lrs": list(self.base_lrs), "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over position **and base rates**; see `set_base_lr` to change the latter.

        Raises:
            CheckpointError: the state is not one of this schedule and number of groups.
        """
        try:
            base_lrs = [float(base_lr) for base_lr in state_dict["base_lrs"]]
            epoch, batch = int(state_dict["epoch"]), int(state_dict["batch"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(
                "the saved learning-rate schedule is not of the Eden kind"
            ) from None
        if len(base_lrs) != len(self.base_lrs):
            raise CheckpointError(
                f"the saved schedule has {len(base_lrs)} base rates, "
                f"the optimiser {len(self.base_lrs)} parameter groups"
            )
        self.base_lrs, self.epoch, self.batch = base_lrs, epoch, batch
        for group, base_lr in zip(self.optimizer.param_groups, base_lrs, strict=True):
            group[self.base_lr_key] = base_lr
        self._set_lr()

    def _warmup(self) -> float:
        if self.batch >= self.warmup_batches:
            return 1.0
        return self.warmup_start + (1.0 - self.warmup_start) * self.batch / self.warmup_batches

    def _set_lr(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
