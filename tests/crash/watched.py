"""How is a training watched from outside and killed in the middle of something?

A training runs in a process group of its own; its log lines, read as they come, say how far it is,
and its folder shows files that are being written.

Invariant: when `run_until` returns, by whatever way, no process of the training is left. Moments
are told by what the training has done, never by the clock alone: a slow machine only takes longer.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "BATCH",
    "SAVING",
    "UNFINISHED",
    "VALIDATING",
    "CrashTestError",
    "Moment",
    "Run",
    "run_until",
    "unfinished_files",
]

# What a training says when it has learnt from a batch, begins to validate, has done so, and begins
# to write a checkpoint.
BATCH: Final = r"Epoch \d+, batch \d+, (?:\w+_)?loss\["
VALIDATING: Final = "Computing validation loss"
SAVING: Final = "Saving checkpoint to "
_VALIDATED: Final = r"Epoch \d+, validation: "
_RESUMING: Final = "Resuming from (.+)"

# Files that are being written, as `snowmelt.core.files` calls them.
UNFINISHED: Final = ".tmp-*"

# Far below the time that the smallest checkpoint takes to be written.
_POLL_S: Final = 0.001
# Longer than any start on a busy machine.
_SILENCE_S: Final = 300.0
_DEATH_S: Final = 60.0


class CrashTestError(Exception):
    """A training failed by itself, or does not move."""


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        pattern: regular expression that finds a log line.
        count: so many lines must have matched; 0: none is waited for.
        delay_s: so long after the last of them.
        writing: then as soon as a file is being written whose path below the training's folder
            matches this pattern.
    """

    pattern: str
    count: int
    delay_s: float = 0.0
    writing: str = ""


@dataclass(frozen=True)
class Run:
    """One process of a training, from its start to its end.

    Attributes:
        lines: what it said.
        first_batch_s: seconds from its start to the record of its first batch, if it came to that.
        is_killed: whether it was; else it has finished.
        unfinished: files that it was writing then, by their paths below its folder.
    """

    lines: tuple[str, ...]
    first_batch_s: float | None
    is_killed: bool
    unfinished: frozenset[str] = frozenset()

    @property
    def num_batches(self) -> int:
        """Batches it has recorded."""
        return sum(bool(re.search(BATCH, line)) for line in self.lines)

    @property
    def resumed_from(self) -> Path | None:
        """The checkpoint it went on from."""
        found = (re.search(_RESUMING, line) for line in self.lines)
        return next((Path(match[1]) for match in found if match), None)

    @property
    def was_saving(self) -> bool:
        """Whether it was killed while it wrote a checkpoint."""
        return any(name.endswith(".pt") for name in self.unfinished)

    @property
    def was_validating(self) -> bool:
        """Whether it was killed between the beginning and the end of a validation."""
        events = re.findall(
            "|".join((BATCH, VALIDATING, _VALIDATED, SAVING)), "\n".join(self.lines)
        )
        return self.is_killed and events[-1:] == [VALIDATING]


def run_until(moment: Moment | None, command: Sequence[str], exp_dir: Path, log_path: Path) -> Run:
    """Start `snowmelt` with these words and kill it at the moment, or let it finish.

    Args:
        moment: when; None: never. A run that finishes before it has come is not killed.
        command: words after `snowmelt`.
        exp_dir: where it writes.
        log_path: receives what it says.

    Raises:
        CrashTestError: it failed by itself, or said nothing for minutes.
    """
    left_by_others = unfinished_files(exp_dir)
    process = _Process(command, log_path)
    alarm = None if moment is None else _Alarm(moment, exp_dir, process)
    has_rung = False
    try:
        while not process.has_ended.wait(_POLL_S):
            if alarm is not None and alarm.rings():
                has_rung = True
                break
            if time.monotonic() - process.last_sign_of_life > _SILENCE_S:
                raise CrashTestError(f"no line in {_SILENCE_S:.0f} s, see {log_path}")
    finally:
        exit_code = process.kill()
    lines = tuple(line for _, line in process.lines)
    # It may have finished in the moment it was to be killed.
    is_killed = has_rung and exit_code == -signal.SIGKILL
    if not is_killed and exit_code != 0:
        raise CrashTestError(
            f"a training ended with exit code {exit_code}, see {log_path}\n" + "\n".join(lines[-5:])
        )
    times = [at for at, line in process.lines if re.search(BATCH, line)]
    return Run(
        lines=lines,
        first_batch_s=times[0] - process.started if times else None,
        is_killed=is_killed,
        unfinished=unfinished_files(exp_dir) - left_by_others,
    )


def unfinished_files(exp_dir: Path) -> frozenset[str]:
    """Files that somebody was writing in a folder, by their paths below it."""
    return frozenset(str(path.relative_to(exp_dir)) for path in exp_dir.rglob(UNFINISHED))


class _Process:
    """`snowmelt` in a process group of its own; a thread takes the time of each line it says."""

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self.started = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        # Of all processes of the group: as long as one lives it holds the pipe open.
        self.has_ended = threading.Event()
        self._log_path = log_path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snowmelt", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def last_sign_of_life(self) -> float:
        """When it said the last line, or was started."""
        return self.lines[-1][0] if self.lines else self.started

    def kill(self) -> int:
        """End all processes of the group, if there are any; the exit code of the first."""
        # The first one is not yet waited for, so the number is still its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if not self.has_ended.wait(_DEATH_S):
            raise CrashTestError(f"killed processes do not end, see {self._log_path}")
        self._reader.join()
        return self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as stream, self._log_path.open("w", encoding="utf-8") as log:
                for line in stream:
                    self.lines.append((time.monotonic(), line.rstrip("\n")))
                    log.write(line)
                    log.flush()
        finally:
            self.has_ended.set()


class _Alarm:
    """Tells whether a moment has come; cheap to ask often."""

    def __init__(self, moment: Moment, exp_dir: Path, process: _Process) -> None:
        self._moment = moment
        self._exp_dir = exp_dir
        self._process = process
        self._num_read = 0
        self._times = [process.started]  # then those of the lines that match

    def rings(self) -> bool:
        """Look at the lines that are new, at the clock, and at the folder."""
        moment = self._moment
        new = self._process.lines[self._num_read :]
        self._num_read += len(new)
        self._times += [at for at, line in new if re.search(moment.pattern, line)]
        if len(self._times) <= moment.count:
            return False
        if time.monotonic() < self._times[moment.count] + moment.delay_s:
            return False
        return not moment.writing or any(self._exp_dir.glob(moment.writing))
