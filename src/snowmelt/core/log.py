"""Where do log lines go and what do they look like?

Invariant: standard output belongs to results; log lines go to standard error and to a file.

Source: icefall, icefall/utils.py, setup_logger (the format of a line).
"""

import logging
import sys
from pathlib import Path
from typing import Final

from snowmelt.core.files import make_folder

__all__ = ["setup_logging"]

_MARK: Final = "_snowmelt_handler"


def setup_logging(
    log_path: str | Path | None = None,
    rank: int = 0,
    world_size: int = 1,
    level: int = logging.INFO,
) -> None:
    """Send log lines of all loggers to standard error and, if given, to a file.

    A second call replaces the handlers of the first one.

    Args:
        log_path: file to append to; its directory is created. With several processes each
            writes its own file: "-<rank>" is appended to the name.
        rank: number of this process, 0-based.
        world_size: number of processes; above 1 every line carries "(rank/world_size)".
        level: lowest level that is written.
    """
    process = f"({rank}/{world_size}) " if world_size > 1 else ""
    line = logging.Formatter(
        f"%(asctime)s %(levelname)s [%(filename)s:%(lineno)d] {process}%(message)s"
    )
    handlers: list[logging.Handler] = [_StderrHandler()]
    if log_path is not None:
        path = Path(log_path)
        if world_size > 1:
            path = path.with_name(f"{path.name}-{rank}")
        make_folder(path.parent)
        handlers.append(_LogFile(path, encoding="utf-8"))

    root = logging.getLogger()
    for handler in [h for h in root.handlers if hasattr(h, _MARK)]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        setattr(handler, _MARK, True)
        handler.setFormatter(line)
        root.addHandler(handler)
    root.setLevel(level)


class _LogFile(logging.FileHandler):
    """Says once that the file cannot be written (the disk is full); the work goes on without."""

    _is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._is_broken = True
        reason = error.strerror or error
        print(f"snowmelt: the log ends here: {self.baseFilename}: {reason}", file=sys.stderr)


class _StderrHandler(logging.Handler):
    """Looks sys.stderr up at every line: a progress bar replaces it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # a failing log line must not stop the work (logging's own rule)
            self.handleError(record)
