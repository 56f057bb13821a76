"""When is a training killed? Moments of all kinds, in an order that a seed decides.

Invariant: the plan is a function of its arguments; where the processes really are when they are
killed depends on the machine, as with real accidents.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.crash.trainings import BATCHES_BETWEEN_SAVES, Training
from tests.crash.watched import (
    BATCH,
    SAVING,
    UNFINISHED,
    VALIDATING,
    Moment,
    Run,
    run_until,
)

__all__ = ["KINDS", "kill_and_resume", "moments"]

# Said shortly before the settings of the training are written.
_BUILT: Final = "Number of model parameters: "
_SAVING_IN_EPOCH: Final = f"{SAVING}.+/checkpoint-"
_SAVING_EPOCH: Final = f"{SAVING}.+/(best|epoch)-"

# Lines until the first batch, about; and what a batch and a validation take, at least.
_START_LINES: Final = 6
_BATCH_S: Final = 0.1
_VALIDATION_S: Final = 0.1

KINDS: Final = ("save", "batch", "validation", "epoch's save", "start", "settings")


def moments(count: int, seed: str) -> list[Moment]:
    """So many moments, all kinds about equally often."""
    rng = random.Random(seed)
    offset = rng.randrange(len(KINDS))
    kinds = [KINDS[(offset + n) % len(KINDS)] for n in range(count)]
    rng.shuffle(kinds)
    return [_moment(kind, rng) for kind in kinds]


def _moment(kind: str, rng: random.Random) -> Moment:
    # Twice what lies between two saves: some of the work since the start is then safe.
    batches = rng.randint(1, 2 * BATCHES_BETWEEN_SAVES)
    match kind:
        case "save":
            return Moment(_SAVING_IN_EPOCH, rng.randint(1, 2), writing=f"{UNFINISHED}.pt")
        case "epoch's save":
            return Moment(_SAVING_EPOCH, rng.randint(1, 2), writing=f"{UNFINISHED}.pt")
        case "validation":
            return Moment(VALIDATING, 1, rng.uniform(0, _VALIDATION_S))
        case "start":
            return Moment("", rng.randint(0, _START_LINES), rng.uniform(0, _BATCH_S))
        case "settings":
            return Moment(_BUILT, 1, writing=f"**/{UNFINISHED}")
        case _:
            return Moment(BATCH, batches, rng.uniform(0, _BATCH_S))


def kill_and_resume(
    training: Training, plan: Sequence[Moment], exp_dir: Path, data_dir: Path
) -> list[Run]:
    """Train until the end, killed at each moment of the plan and gone on with.

    Returns:
        its processes; it has been killed one time less. That may be fewer times than planned:
        a training that finishes before a moment has come is done.
    """
    runs: list[Run] = []
    for moment in (*plan, None):
        log_path = exp_dir.with_name(f"{exp_dir.name}-process-{len(runs) + 1}.log")
        runs.append(run_until(moment, training.command(exp_dir, data_dir), exp_dir, log_path))
        if not runs[-1].is_killed:
            break
    return runs
