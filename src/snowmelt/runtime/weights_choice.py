"""Which checkpoints of an experiment are averaged?

Invariant: looks at names of files only.
"""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snowmelt.checkpoint.experiment import numbered_checkpoints
from snowmelt.core.errors import CheckpointError

__all__ = ["WeightsChoice"]

# As many epochs as the original's decode.py averages; a shorter run averages what it has.
_DEFAULT_AVG: Final = 9


@dataclass(frozen=True)
class WeightsChoice:
    """Which checkpoints of an experiment are averaged; names are the recipe's options.

    Attributes:
        epoch: last epoch, counted from 1; None for the newest one.
        iteration: above 0, take checkpoint-<iteration>.pt and those before it, not epochs.
        avg: how many epochs (or checkpoints); None for nine, or as many as there are.
        use_averaged_model: average with the running means that training keeps, over all batches
            of these epochs, and not only the models at their ends.
    """

    epoch: int | None = None
    iteration: int = 0
    avg: int | None = None
    use_averaged_model: bool = True

    def resolved(self, exp_dir: Path) -> "WeightsChoice":
        """The same choice with every number filled in.

        Raises:
            CheckpointError: the experiment has no checkpoint.
        """
        if not exp_dir.is_dir():
            raise CheckpointError(
                f"the experiment {exp_dir} is no folder", "give the --exp-dir of a training"
            )
        if self.iteration > 0:
            numbers = numbered_checkpoints(exp_dir, "checkpoint")
            # The running mean needs one checkpoint more: the one before the first.
            available = sum(n <= self.iteration for n in numbers) - self.use_averaged_model
            return dataclasses.replace(self, avg=self.avg or max(1, min(_DEFAULT_AVG, available)))
        epochs = numbered_checkpoints(exp_dir, "epoch")
        epoch = self.epoch
        if epoch is None:
            epoch = max(epochs, default=0)
        if epoch == 0:
            raise CheckpointError(
                f"{exp_dir} has no epoch-N.pt", "train at least one epoch, or choose --iter"
            )
        return dataclasses.replace(self, epoch=epoch, avg=self.avg or self._most(epoch, epochs))

    def _most(self, epoch: int, epochs: Container[int]) -> int:
        """How many epochs up to `epoch` can be averaged, at most the default."""
        wanted = min(_DEFAULT_AVG, epoch)
        for avg in range(wanted, 0, -1):
            # The running mean needs the file before the first only, if there is one at all.
            needed = (epoch - avg,) if self.use_averaged_model else range(epoch - avg + 1, epoch)
            if all(number == 0 or number in epochs for number in needed):
                return avg
        return wanted  # whose files are then said to be missing
