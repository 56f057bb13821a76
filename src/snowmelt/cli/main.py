"""Which subcommand runs, and which exit code does it end with?

    0    done
    1    a bug: traceback, and where to report it
    2    the user's mistake or bad input: one line on standard error
    130  interrupted

A subcommand is a module of this package named like it (`streaming-decode`: streaming_decode.py)
with two functions: `add_parser(subparsers)` and `run(args) -> int`.

Invariant: only the module of the subcommand that was asked for is imported; no module imports torch
or numpy before its `run`.
"""

import argparse
import importlib
import io
import os
import select
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, NoReturn

from snowmelt._version import __version__
from snowmelt.core.errors import UserError
from snowmelt.core.files import refusal

__all__ = ["COMMANDS", "build_parser", "entry_point", "main"]

COMMANDS: Final = (
    "prepare",
    "train",
    "train-lm",
    "decode",
    "streaming-decode",
    "compare",
    "frontier",
    "export",
    "transcribe",
    "info",
    "doctor",
)

_DONE: Final = 0
_BUG: Final = 1
_USER_ERROR: Final = 2
_INTERRUPTED: Final = 130


_NO_MEMORY: Final = (
    "the memory is too small for this (hint: lower --max-duration, --num-decode-streams or "
    "--decode-chunk-len, or choose a smaller model)"
)


class _Parser(argparse.ArgumentParser):
    """argparse, with errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USER_ERROR, f"snowmelt: error: {message} (hint: see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse leaves unknown words to the outermost parser, whose help does not list options.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def entry_point() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: words after the program's name; those of this process by default.

    Returns:
        The exit code (see the module's docstring).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    _prepare_streams()
    try:
        args = build_parser(words).parse_args(words)
        exit_code: int = _command_module(args.command).run(args)
        sys.stdout.flush()
    except SystemExit as exit_request:  # argparse: help, version, a wrong option
        return exit_request.code if isinstance(exit_request.code, int) else _BUG
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("snowmelt: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        return _DONE if _reader_has_left() else _report_bug()
    except OSError as error:
        refused = refusal(error)
        return _report_bug() if refused is None else _fail(str(refused))
    except Exception as error:
        return _fail(_NO_MEMORY) if _is_out_of_memory(error) else _report_bug()
    return exit_code


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser for a command line.

    Args:
        words: the command line. Only the subcommand that it names is imported; all of them when it
            names none.
    """
    parser = _Parser(prog="snowmelt", description="Streaming speech recognition.")
    parser.add_argument("--version", action="version", version=f"snowmelt {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for command in [named] if named in COMMANDS else COMMANDS:
        _command_module(command).add_parser(subparsers)
    return parser


def _command_module(command: str) -> ModuleType:
    return importlib.import_module(f"snowmelt.cli.{command.replace('-', '_')}")


def _fail(message: str) -> int:
    print(f"snowmelt: error: {message}", file=sys.stderr)
    return _USER_ERROR


def _report_bug() -> int:
    traceback.print_exc()
    print(
        "snowmelt: this is a bug in snowmelt: please report it as CONTRIBUTING.md says, with the "
        f"lines above, your command line and this version: {__version__}",
        file=sys.stderr,
    )
    return _BUG


def _prepare_streams() -> None:
    """Streams that were closed (`>&-`) swallow what is printed; none refuses a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # File names need not be text, and a terminal may not know all letters.
            stream.reconfigure(errors="backslashreplace")


def _is_out_of_memory(error: Exception) -> bool:
    # torch has several types for this, and is not imported here.
    signs = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _reader_has_left() -> bool:
    """True if it was standard output that broke (`snowmelt ... | head`), not a pipe of our own."""
    try:
        stdout = sys.stdout.fileno()
    except OSError:  # not a file of the system
        return False
    poll = select.poll()
    poll.register(stdout, 0)
    has_left = any(event & select.POLLERR for _, event in poll.poll(0))
    if has_left:
        # Python flushes what is left at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return has_left
