"""How does a long job show how far it is?

A bar on standard error when that is a terminal; otherwise a log line now and then.

Invariant: nothing is written to standard output; rich is imported only when a bar is drawn.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Protocol

__all__ = ["Progress", "progress_bar"]

_logger = logging.getLogger(__name__)

# Seconds between two log lines where no bar can be drawn: a log of an hour stays readable.
_LOG_INTERVAL_S: Final = 30.0


class Progress(Protocol):
    """What `progress_bar` hands out."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """`amount` more units are done; `note` says how it goes (a loss, a speed)."""


@contextmanager
def progress_bar(description: str, total: float | None = None) -> Iterator[Progress]:
    """Show the progress of a job while the block runs.

    Args:
        description: what is being done, a few words.
        total: units in all; None if not known.

    Example:
        >>> with progress_bar("reading", total=2) as progress:
        ...     progress.advance()
        ...     progress.advance()
    """
    if not sys.stderr.isatty():
        lines = _LogLines(description, total)
        yield lines
        lines.finish()
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Shown only while it runs: what stays on the screen are the log lines.
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as rich_progress:
        task = rich_progress.add_task(description, total=total, note="")

        class _Bar:
            def advance(self, amount: float = 1, note: str = "") -> None:
                rich_progress.update(task, advance=amount, note=note)

        yield _Bar()


class _LogLines:
    def __init__(self, description: str, total: float | None) -> None:
        self._description = description
        self._total = total
        self._done: float = 0
        self._note = ""
        self._start = self._last_line = monotonic()

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._done += amount
        self._note = note
        now = monotonic()
        if now - self._last_line >= _LOG_INTERVAL_S:
            self._last_line = now
            self._log(now)

    def finish(self) -> None:
        # A job shorter than the interval needs no line at all.
        if self._last_line > self._start:
            self._log(monotonic())

    def _log(self, now: float) -> None:
        of_total = "" if self._total is None else f"/{self._total:g}"
        note = f", {self._note}" if self._note else ""
        seconds = now - self._start
        _logger.info(
            "%s: %g%s after %.0f s%s", self._description, self._done, of_total, seconds, note
        )
