"""Which steps of a preparation are done, which are left, and in which order are they made?

A stage (a number that users know from icefall's scripts) has one or more steps. A step that is done
leaves a record: its outputs with their sizes, and a key of all that they depend on (settings, files
of others, the keys of the steps it needs).

Invariant: a step is done if and only if its record has the step's present key and all outputs are
there in the recorded size. The record is removed before anything else is touched and written last,
so a run can be killed at any moment. Two runs never work in the same folder at once.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from snowmelt.core.errors import DataError, UserError
from snowmelt.core.files import make_folder, remove_leftovers, write_text
from snowmelt.prepare.download import Archive

__all__ = ["Pipeline", "Step", "StepState", "recorded_steps"]

_logger = logging.getLogger(__name__)

# Changes whenever the same settings would give other files.
_LAYOUT: Final = 1
_RECORDS: Final = ".prepare"


@dataclass(frozen=True)
class Step:
    """One thing to make.

    Attributes:
        stage: the stage it belongs to.
        name: of its record; letters, digits, dots and dashes.
        title: what is made, as a user would say it.
        outputs: the files that are there when it is done.
        make: makes them and returns a few words on what they hold.
        settings: what they depend on, besides files.
        needs: names of steps whose outputs it reads.
        inputs: describes the files of others that it reads; None: these are missing.
        scratch: folders of its own, full of outputs; a killed run leaves them half full, and the
            next one fills them up.
        archive: what `make` would have to fetch, for a step that brings something.
        more_outputs: outputs whose names are known when it is done.
        is_there: for a step that brings something which others may have put there: whether it is.
            Such a step has no record, and is never made twice.
    """

    stage: int
    name: str
    title: str
    outputs: tuple[Path, ...]
    make: Callable[[], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    inputs: Callable[[], str | None] = lambda: ""
    scratch: tuple[Path, ...] = ()
    more_outputs: Callable[[], Iterable[Path]] = tuple
    archive: Archive | None = None
    is_there: Callable[[], bool] | None = None


@dataclass(frozen=True)
class StepState:
    """Where a step stands.

    Attributes:
        stage: the stage it belongs to.
        title: what is made.
        is_done: whether there is nothing left to do.
        note: what it made, or why it is not done.
    """

    stage: int
    title: str
    is_done: bool
    note: str


class Pipeline:
    """The steps of a preparation.

    Args:
        corpus: what is prepared; its records lie in a folder of this name.
        folder: where everything is made.
        steps: in an order in which each comes after those that it needs.
    """

    def __init__(self, corpus: str, folder: Path, steps: Sequence[Step]) -> None:
        self._root = folder
        self._records = folder / _RECORDS / corpus
        self._steps = steps
        self._by_name = {step.name: step for step in steps}
        self._keys: dict[str, str] = {}

    def selected(self, first: int, last: int) -> list[Step]:
        """The steps of stages `first` to `last`."""
        return [step for step in self._steps if first <= step.stage <= last]

    def states(self, first: int, last: int, *, force: bool = False) -> list[StepState]:
        """Where the steps of stages `first` to `last` stand; nothing is changed.

        Args:
            first: first stage.
            last: last stage.
            force: look at steps as `run` would with this value.
        """
        states = []
        for step in self.selected(first, last):
            reason = self._reason(step)
            if not reason and force and step.is_there is None:
                reason = "made again, because --force says so"
            note = reason or self._summary(step)
            states.append(StepState(step.stage, step.title, not reason, note))
        return states

    def run(self, first: int, last: int, *, force: bool = False) -> list[str]:
        """Make what is left of stages `first` to `last`.

        Args:
            first: first stage.
            last: last stage.
            force: make everything again (nothing is fetched again).

        Returns:
            What each step made, now or earlier, in a few words.

        Raises:
            DataError: a stage before `first` is not done, or a step fails.
            UserError: another preparation works in this folder, or it cannot be written.
        """
        steps = self.selected(first, last)
        made = []
        self._keys.clear()
        with _locked(self._root / _RECORDS):
            for step in steps:
                reason = self._reason(step)
                if reason or (force and step.is_there is None):
                    self._check_needs(step)
                    _logger.info("Stage %d: %s (%s)", step.stage, step.title, reason or "--force")
                    self._make(step, is_forced=force)
                # A run may have been killed after the last thing that counts.
                self._begun_path(step).unlink(missing_ok=True)
                made.append(self._summary(step))
        return [words for words in made if words]

    def _make(self, step: Step, *, is_forced: bool) -> None:
        if step.is_there is not None:
            step.make()
            return
        key = self._key(step)
        record = self._record_path(step)
        begun = self._begun_path(step)
        last_key = (_read_record(record) or {}).get("key")
        if begun.exists():
            last_key = begun.read_text(encoding="utf-8")
        outputs = (*step.outputs, *step.more_outputs())
        for folder in {self._records, *step.scratch, *(path.parent for path in outputs)}:
            remove_leftovers(folder, "*")
        if is_forced or last_key != key:
            # What an earlier run left belongs to something else.
            for folder in step.scratch:
                shutil.rmtree(folder, ignore_errors=True)
        # In this order: a folder that belongs to no key must not be taken for one that does.
        write_text(begun, key)
        record.unlink(missing_ok=True)
        summary = step.make()
        found = (p for folder in step.scratch for p in sorted(folder.rglob("*")) if p.is_file())
        paths = [*step.outputs, *step.more_outputs(), *found]
        sizes = {os.path.relpath(p, self._root): p.stat().st_size for p in paths}
        content = {
            "stage": step.stage,
            "title": step.title,
            "key": key,
            "outputs": sizes,
            "made": summary,
        }
        write_text(record, json.dumps(content, indent=1) + "\n")

    def _reason(self, step: Step) -> str:
        """Why a step is not done; empty if it is."""
        if step.is_there is not None:
            return "" if step.is_there() else "missing"
        record = _read_record(self._record_path(step))
        if record is None:
            return "unfinished" if self._begun_path(step).exists() else "new"
        if record["key"] != self._key(step):
            return "made of something else"
        for name, size in record["outputs"].items():
            path = self._root / name
            if not path.is_file() or path.stat().st_size != size:
                return f"{path} is missing or was changed"
        return ""

    def _key(self, step: Step) -> str:
        if step.name not in self._keys:
            inputs = step.inputs()
            record = _read_record(self._record_path(step))
            if inputs is None and record is not None:
                # What it was made of is gone; what was made is as good as before.
                return str(record["key"])
            needed = [self._key(self._by_name[name]) for name in step.needs]
            content = json.dumps([_LAYOUT, step.name, dict(step.settings), inputs, needed])
            self._keys[step.name] = hashlib.sha256(content.encode()).hexdigest()
        return self._keys[step.name]

    def _check_needs(self, step: Step) -> None:
        # What it needs may have been brought a moment ago.
        self._keys.clear()
        for name in step.needs:
            needed = self._by_name[name]
            reason = self._reason(needed)
            if reason:
                raise DataError(
                    f"stage {step.stage} ({step.title}) needs stage {needed.stage} "
                    f"({needed.title}): {reason}",
                    f"run it first: --stage {needed.stage}",
                )

    def _summary(self, step: Step) -> str:
        if step.is_there is not None:
            return ""
        record = _read_record(self._record_path(step))
        return "" if record is None else str(record["made"])

    def _record_path(self, step: Step) -> Path:
        return self._records / f"{step.name}.json"

    def _begun_path(self, step: Step) -> Path:
        """Holds the key of what is being made, while it is."""
        return self._records / f"{step.name}.begun"


def recorded_steps(folder: Path) -> dict[str, list[StepState]]:
    """What preparations have left in a folder, by corpus, in the order of stages."""
    corpora = {}
    for records in sorted(path for path in (folder / _RECORDS).glob("*") if path.is_dir()):
        states = []
        for path in sorted(records.glob("*.json")):
            record = _read_record(path)
            if record is None:
                continue
            lost = [
                name
                for name, size in record["outputs"].items()
                if not (folder / name).is_file() or (folder / name).stat().st_size != size
            ]
            note = f"{lost[0]} is missing or was changed" if lost else str(record["made"])
            states.append(StepState(record["stage"], record["title"], not lost, note))
        for path in sorted(records.glob("*.begun")):
            if not path.with_suffix(".json").exists():
                states.append(StepState(-1, path.stem, False, "unfinished"))
        corpora[records.name] = sorted(states, key=lambda state: state.stage)
    return corpora


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_record = isinstance(record, dict) and {"stage", "key", "outputs", "made"} <= record.keys()
    return record if is_record else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with (folder / "lock").open("w") as file:
        try:
            # The system gives the lock back when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another snowmelt prepare is at work in {folder.parent}", "wait until it is done"
            ) from None
        yield
