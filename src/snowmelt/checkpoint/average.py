"""Which checkpoints make the model that is evaluated, and how are they averaged?

Two ways. Plain: the mean of the models in several files. Averaged model: training keeps a running
mean of its models, one every `average_period` batches; the difference of two running means is the
mean over all models between two files.

Invariant: sums are in float64, results in the type that is stored; the files used are logged.

Source: icefall, icefall/checkpoint.py.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.checkpoint.experiment import numbered_checkpoints
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.checkpoint.icefall import state_dict_of
from snowmelt.core.errors import CheckpointError

__all__ = [
    "CheckpointChoice",
    "average_checkpoints",
    "average_checkpoints_with_averaged_model",
    "find_checkpoints",
    "load_average",
    "update_averaged_model",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointChoice:
    """The files that `--epoch` or `--iter`, `--avg` and `--use-averaged-model` ask for.

    Plain: `files` are averaged (one file: taken as it is). With the averaged model: `files` are
    (start, end), where start itself is excluded, or (end,) for the mean since training began.
    """

    files: tuple[Path, ...]
    use_averaged_model: bool

    def __str__(self) -> str:
        names = [path.name for path in self.files]
        if not self.use_averaged_model:
            return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"
        if len(names) == 1:
            return f"mean of all models up to {names[0]}"
        return f"mean of the models after {names[0]} up to {names[1]}"


def find_checkpoints(
    exp_dir: str | Path,
    *,
    epoch: int | None = None,
    iteration: int = 0,
    avg: int = 1,
    use_averaged_model: bool = True,
) -> CheckpointChoice:
    """Choose checkpoint files of an experiment; all of them exist.

    Args:
        exp_dir: folder with epoch-N.pt and checkpoint-B.pt.
        epoch: last epoch, from 1; used if `iteration` is 0.
        iteration: above 0: take checkpoint-<iteration>.pt and those before it.
        avg: number of epochs or checkpoints to average over, at least 1.
        use_averaged_model: average over all models that training met in between, with the
            running means in the files.

    Raises:
        CheckpointError: a file that is asked for does not exist, or there are too few.
    """
    exp_dir = Path(exp_dir)
    if avg < 1:
        raise CheckpointError(f"cannot average {avg} checkpoints", "--avg must be at least 1")
    if iteration > 0:
        return _by_iteration(exp_dir, iteration, avg, use_averaged_model)
    if epoch is None:
        raise CheckpointError("neither an epoch nor an iteration was chosen", "--epoch N")
    if epoch < avg:
        raise CheckpointError(f"epoch {epoch} has no {avg} epochs to average", f"--avg {epoch}")
    if use_averaged_model:
        numbers = [epoch - avg, epoch] if epoch > avg else [epoch]
    else:
        numbers = list(range(epoch - avg + 1, epoch + 1))
    files = numbered_checkpoints(exp_dir, "epoch")
    missing = [f"epoch-{number}.pt" for number in numbers if number not in files]
    if missing:
        raise CheckpointError(
            f"{exp_dir} has no {', '.join(missing)}", _available(exp_dir, "epoch", files)
        )
    return CheckpointChoice(tuple(files[number] for number in numbers), use_averaged_model)


def load_average(choice: CheckpointChoice) -> dict[str, Tensor]:
    """Weights averaged as `find_checkpoints` chose.

    Raises:
        CheckpointError: a file cannot be read, or the files do not belong together.
    """
    _logger.info("Weights: %s", choice)
    if not choice.use_averaged_model:
        return average_checkpoints(choice.files)
    checkpoints = [load_checkpoint(path) for path in choice.files]
    names = [str(path) for path in choice.files]
    start = checkpoints[0] if len(checkpoints) == 2 else None
    return average_checkpoints_with_averaged_model(start, checkpoints[-1], names=names)


def update_averaged_model(
    model_cur: nn.Module | Mapping[str, Tensor],
    model_avg: nn.Module | Mapping[str, Tensor],
    batch_idx_train: int,
    average_period: int,
) -> None:
    """Take the present model into the running mean, in place.

    To be called after every batch whose number is a multiple of `average_period`; the mean is
    then that of the models met at these calls. Integer entries keep their value.

    Args:
        model_cur: the model, or its state dict.
        model_avg: the running mean, floating entries in float64; a model of the same kind or a
            state dict.
        batch_idx_train: batches so far, this one included.
        average_period: batches between two calls.
    """
    current, average = _entries(model_cur), _entries(model_avg)
    weight = average_period / batch_idx_train
    done = set()
    with torch.no_grad():
        for name, mean in average.items():
            # Tied weights appear under several names, but are one tensor.
            if mean.is_floating_point() and mean.data_ptr() not in done:
                done.add(mean.data_ptr())
                # The product is rounded to the model's type, the sum is not: as the original.
                mean.mul_(1.0 - weight).add_((current[name] * weight).to(mean.device))


def average_checkpoints(
    checkpoints: Sequence[str | Path | Mapping[str, Any]],
) -> dict[str, Tensor]:
    """Mean of the models in several checkpoints; integers are divided without remainder.

    Args:
        checkpoints: at least one file, checkpoint or state dict; files are read one by one.

    Raises:
        CheckpointError: a file cannot be read, or the models differ in names or shapes.
    """
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    first = ""
    for index, source in enumerate(checkpoints):
        if isinstance(source, Mapping):
            name, checkpoint = f"checkpoint {index}", source
        else:
            name, checkpoint = str(source), load_checkpoint(source)
        weights = state_dict_of(checkpoint, name)
        if not total:
            first, types = name, {key: value.dtype for key, value in weights.items()}
            total = {key: _wide(value).clone() for key, value in weights.items()}
            continue
        _require_same(total, weights, first, name)
        for key, value in weights.items():
            total[key] += value
    count = len(checkpoints)
    return {
        key: (value / count if value.is_floating_point() else value // count).to(types[key])
        for key, value in total.items()
    }


def average_checkpoints_with_averaged_model(
    start: Mapping[str, Any] | None,
    end: Mapping[str, Any],
    *,
    names: Sequence[str] = ("the start checkpoint", "the end checkpoint"),
) -> dict[str, Tensor]:
    """Mean of all models that training met after `start` up to `end`.

    Args:
        start: checkpoint with model_avg, batch_idx_train and average_period; None: the mean
            since training began.
        end: a later checkpoint of the same run. Its integer entries are kept.
        names: what to call the two in messages.

    Raises:
        CheckpointError: no running mean in a checkpoint, or none was updated in between.
    """
    end_name = names[-1]
    period = _count(start or end, "average_period", names[0])
    if period < 1:
        raise CheckpointError(f"average_period of {names[0]} must be at least 1, got {period}")
    stop = _count(end, "batch_idx_train", end_name) // period * period
    end_mean = _running_mean(end, end_name)
    begin = 0
    start_mean = {}
    if start is not None:
        begin = _count(start, "batch_idx_train", names[0]) // period * period
        start_mean = _running_mean(start, names[0])
        _require_same(start_mean, end_mean, names[0], end_name)
    if stop <= begin:
        raise CheckpointError(
            f"no running mean was taken between batches {begin} and "
            f"{_count(end, 'batch_idx_train', end_name)} (one every {period})",
            "average over more, or use --use-averaged-model 0",
        )
    types = {key: value.dtype for key, value in state_dict_of(end, end_name, "model_avg").items()}
    result = {}
    for key, mean in end_mean.items():
        if mean.is_floating_point() and begin > 0:
            mean = (stop * _wide(mean) - begin * _wide(start_mean[key])) / (stop - begin)
        result[key] = mean.to(types[key])
    return result


def _by_iteration(
    exp_dir: Path, iteration: int, avg: int, use_averaged_model: bool
) -> CheckpointChoice:
    files = numbered_checkpoints(exp_dir, "checkpoint")
    if iteration not in files:
        raise CheckpointError(
            f"{exp_dir} has no checkpoint-{iteration}.pt", _available(exp_dir, "checkpoint", files)
        )
    numbers = [number for number in files if number <= iteration]
    needed = avg + 1 if use_averaged_model else avg
    if len(numbers) < needed:
        raise CheckpointError(
            f"averaging {avg} checkpoints up to checkpoint-{iteration}.pt needs {needed} of them, "
            f"{exp_dir} has {len(numbers)}",
            _available(exp_dir, "checkpoint", files),
        )
    chosen = numbers[-needed:]
    if use_averaged_model:
        chosen = [chosen[0], chosen[-1]]
    return CheckpointChoice(tuple(files[number] for number in chosen), use_averaged_model)


def _available(exp_dir: Path, prefix: str, files: Mapping[int, Path]) -> str:
    if not files:
        return f"there is no {prefix}-N.pt in {exp_dir}"
    numbers = list(files)
    shown = ", ".join(map(str, numbers)) if len(numbers) <= 8 else f"{numbers[0]} … {numbers[-1]}"
    return f"there are {len(files)}: {prefix} {shown}"


def _entries(model: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return model.state_dict() if isinstance(model, nn.Module) else model


def _running_mean(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The running mean, in float64 where the file has it."""
    ours = checkpoint.get("snowmelt")
    if isinstance(ours, Mapping) and "model_avg" in ours:
        return state_dict_of(ours, name, "model_avg")
    if "model_avg" not in checkpoint:
        raise CheckpointError(f"{name} holds no running mean", "use --use-averaged-model 0")
    return state_dict_of(checkpoint, name, "model_avg")


def _count(checkpoint: Mapping[str, Any], key: str, name: str) -> int:
    value = checkpoint.get(key)
    if not isinstance(value, int):
        raise CheckpointError(f"{name} has no number '{key}'", "use --use-averaged-model 0")
    return value


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.float64) if value.is_floating_point() else value


def _require_same(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], name: str, other: str
) -> None:
    if ours.keys() != theirs.keys():
        key = sorted(ours.keys() ^ theirs.keys())[0]
        raise CheckpointError(f"{name} and {other} are different models: only one has '{key}'")
    for key, value in ours.items():
        if value.shape != theirs[key].shape:
            raise CheckpointError(
                f"{name} and {other} are different models: '{key}' is "
                f"{tuple(value.shape)} and {tuple(theirs[key].shape)}"
            )
