"""Which checkpoint does a run go on from, and is it one of the same run?

Asked alike by the trainings of transducers and of language models; their files hold under
"snowmelt" where the run stood (`progress`) and with which settings (`config`).

Invariant: knows no model and no optimiser; what a file holds is not changed.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from snowmelt.checkpoint.experiment import numbered_checkpoints
from snowmelt.checkpoint.files import peek_checkpoint
from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import atomic_path, make_folder

__all__ = [
    "SettingRules",
    "check_settings",
    "fitting",
    "flat_settings",
    "keep_newest",
    "newest_checkpoint",
    "own_part",
    "save_copies",
    "set_aside_later",
]

_logger = logging.getLogger(__name__)


class SettingRules(NamedTuple):
    """What the settings of a run decide; dotted names, or how they begin.

    Attributes:
        of_the_weights: the weights, and what the optimiser keeps for them, belong to these.
        of_the_batches: the batches of an epoch follow from these.
        of_no_influence: these, by their whole names, change nothing that is learnt from one batch.
    """

    of_the_weights: tuple[str, ...]
    of_the_batches: tuple[str, ...]
    of_no_influence: tuple[str, ...]


def newest_checkpoint(exp_dir: Path) -> Path | None:
    """The checkpoint of `exp_dir` with the most batches behind it; None if there is none.

    The file itself says how many: its time may be that of a copy, and epochs and batches are
    numbered differently.

    Raises:
        CheckpointError: a file cannot be read, or was not written by snowmelt.
    """
    last = [
        list(numbered.values())[-1]
        for numbered in (
            numbered_checkpoints(exp_dir, "epoch"),
            numbered_checkpoints(exp_dir, "checkpoint"),
        )
        if numbered
    ]
    return max(last, key=_position, default=None)


def set_aside_later(exp_dir: Path, start: Path) -> None:
    """Move the checkpoints with more steps behind them than `start` into a folder of their own.

    Who goes back leaves a course of the run. Its files must not be taken for those of the new one:
    by the next resume, by averaging, or when only the newest are kept.
    """
    at = _position(start)
    later = [
        path
        for prefix in ("epoch", "checkpoint")
        for path in numbered_checkpoints(exp_dir, prefix).values()
        if _is_behind(path, at)
    ]
    if not later:
        return
    folder = exp_dir / time.strftime("superseded-%Y-%m-%d-%H-%M-%S")
    make_folder(folder)
    for path in later:
        path.rename(folder / path.name)
    _logger.warning(
        "Going back to %s: %d later checkpoints are now in %s", start.name, len(later), folder
    )


def keep_newest(exp_dir: Path, number: int) -> None:
    """Remove all checkpoint-B.pt but the last `number`."""
    for path in list(numbered_checkpoints(exp_dir, "checkpoint").values())[:-number]:
        path.unlink()


def save_copies(first: Path, copies: Iterable[Path]) -> None:
    """Give a checkpoint that is written further names, in this order.

    Raises:
        UserError: a file cannot be written.
    """
    for path in copies:
        _logger.info("Saving checkpoint to %s", path)
        with atomic_path(path) as temporary:
            shutil.copyfile(first, temporary)


def own_part(checkpoint: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What snowmelt keeps in a checkpoint beside what the original does.

    Raises:
        CheckpointError: there is nothing.
    """
    ours = checkpoint.get("snowmelt")
    if not isinstance(ours, Mapping):
        raise CheckpointError(
            f"{path} was not written by snowmelt, a run cannot be resumed from it",
            hint="start a new run with another --exp-dir",
        )
    return ours


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def check_settings(
    path: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    rules: SettingRules,
    *,
    is_inside_epoch: bool,
    is_main: bool = True,
) -> None:
    """Compare the settings of a checkpoint with those of the run that goes on from it.

    Args:
        path: the checkpoint, for messages.
        before: its settings, by dotted names; `vocabulary_hash` among them.
        now: the run's.
        rules: what they decide.
        is_inside_epoch: whether the checkpoint was saved before the end of an epoch.
        is_main: whether this process logs what has changed.

    Raises:
        CheckpointError: a setting differs that must not.
    """
    if before.get("vocabulary_hash") != now["vocabulary_hash"]:
        raise CheckpointError(
            f"{path} is of a run with another vocabulary",
            hint=f"--bpe-model {path.parent / 'lang'} takes that run's own",
        )
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new or name in rules.of_no_influence:
            continue
        if name.startswith(rules.of_the_weights):
            raise CheckpointError(
                f"{path} is of a run whose {name} is {old}, here it is {new}",
                hint="resume with the settings the run was started with, or start a new run "
                "with another --exp-dir",
            )
        if is_inside_epoch and name.startswith(rules.of_the_batches):
            raise CheckpointError(
                f"{path} is of the middle of an epoch whose {name} is {old}, here it is {new}",
                hint="resume with the settings the epoch was begun with, or go on from an "
                "epoch-N.pt with --start-epoch",
            )
        if is_main:
            _logger.warning("%s was %s so far, from here on it is %s", name, old, new)


def _is_behind(path: Path, position: tuple[int, int]) -> bool:
    """Whether a checkpoint has more behind it; one that cannot be read is left where it is."""
    try:
        return _position(path) > position
    except CheckpointError:
        return False


def _position(path: Path) -> tuple[int, int]:
    """Batches done, and the epoch to go on with: later where the epoch is complete."""
    progress = own_part(peek_checkpoint(path), path).get("progress", {})
    return progress.get("batch_idx_train", 0), progress.get("epoch", 0)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """What goes wrong while the parts of a checkpoint are taken over says that it does not fit.

    Raises:
        CheckpointError: it is another run's, or damaged.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path} does not fit this run: {reason}",
            hint="resume with the settings the run was started with",
        ) from error
