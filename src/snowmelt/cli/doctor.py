"""`snowmelt doctor [PATH]`: what is wrong with a model, or what this machine offers.

Exit code 0: healthy; 2: not, one line a problem on standard output.
"""

import argparse
from pathlib import Path
from typing import Final

__all__ = ["add_parser", "run"]

_HEALTHY: Final = 0
_SICK: Final = 2


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is wrong with a model, or with this machine",
        description="Find what is wrong with a model's file or folder; without PATH, say what is "
        "installed on this machine and what is used.",
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="file or folder")


def run(args: argparse.Namespace) -> int:
    """Print problems, or the machine."""
    if args.path is None:
        from snowmelt.runtime.doctor_machine import machine_facts

        for name, value in machine_facts().items():
            print(f"{name}: {value}")
        return _HEALTHY
    from snowmelt.runtime.doctor import find_problems

    problems = find_problems(args.path)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.path}: healthy")
    return _SICK if problems else _HEALTHY
