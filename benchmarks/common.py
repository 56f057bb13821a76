"""How are programs compared on a machine on which other things run too?

They take turns: one repetition of each, again and again, so that whatever else runs meets all of
them. A program of another environment (another Python, another torch) runs in a process of its own
that does one repetition whenever it is told to; so do ours, for the same treatment. Given are the
median of the wall time and of the processor time, and the ratio of the medians of the latter and
the former to those of the first program; on a busy machine only the processor time says something.
Peak memory is that of a fresh process, above what it held when its inputs were ready.

Invariant: prints figures, asserts nothing.
"""

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

__all__ = ["Peer", "Times", "in_turn", "library_path", "print_table"]


_ROUNDS_OF_THE_LAST: Final = 3


class Times(NamedTuple):
    """Milliseconds of every repetition."""

    wall: list[float]
    processor: list[float]


class Peer:
    """A process that does one repetition of one program when told.

    Args:
        command: the process, see `loss_worker.py` for what it is asked and answers.
        num_threads: of its numerical libraries.
        environment: variables added to ours.
    """

    def __init__(
        self, command: Sequence[str], num_threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": str(num_threads),
            "MKL_NUM_THREADS": str(num_threads),
            # Waiting threads that spin take the processor from whoever has its turn.
            "OMP_WAIT_POLICY": "PASSIVE",
            "CUDA_VISIBLE_DEVICES": "",
            **(environment or {}),
        }
        self._process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask("ready")

    def ask(self, question: str) -> dict[str, float]:
        """Send a line; the answer is a line of JSON."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended: {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def in_turn(
    peers: Mapping[str, Peer], repetitions: int, *, last_always: bool = False
) -> dict[str, Times]:
    """Times of every program, after a round that does not count.

    The last program, the plain one that the others are checked by, takes part in three rounds only,
    unless `last_always`.
    """
    times = {name: Times([], []) for name in peers}
    last = list(peers)[-1]
    for number in range(-1, repetitions):
        for name, peer in peers.items():
            if name == last and number >= _ROUNDS_OF_THE_LAST and not last_always:
                continue
            answer = peer.ask("run")
            if number >= 0:
                times[name].wall.append(answer["wall_ms"])
                times[name].processor.append(answer["processor_ms"])
    return times


def print_table(
    title: str, times: Mapping[str, Times], more: Mapping[str, Mapping[str, str]]
) -> None:
    """Print a table; `more` has further columns, of every program by name."""
    columns = list(dict.fromkeys(key for row in more.values() for key in row))
    heads = ["program", "wall ms", "fastest", "CPU ms", "ratio wall", "ratio CPU", *columns]
    print(f"\n{title}\n\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    first = next(iter(times.values()))
    for name, row in times.items():
        wall, processor = statistics.median(row.wall), statistics.median(row.processor)
        cells = [
            name,
            f"{wall:.1f}",
            f"{min(row.wall):.1f}",
            f"{processor:.1f}",
            f"{statistics.median(first.wall) / wall:.2f}",
            f"{statistics.median(first.processor) / processor:.2f}",
            *(more.get(name, {}).get(column, "") for column in columns),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def library_path(python: Path) -> str:
    """What LD_LIBRARY_PATH must name for a Python with a torch that brings CUDA libraries."""
    prefix = python.parent.parent
    packages = next(prefix.glob("lib/python3*/site-packages"))
    folders = [python.resolve().parent.parent / "lib", packages / "torch" / "lib"]
    folders += sorted(packages.glob("nvidia/*/lib"))
    return ":".join(map(str, folders))
