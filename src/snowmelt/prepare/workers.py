"""How is the work of a step shared among processes that may be killed?

Invariant: results come in the order of the jobs, whatever the number of processes; no worker
outlives the process that started it.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, Protocol, Self, TypeVar

from snowmelt.core.errors import UserError

__all__ = ["Executor", "Workers"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# Jobs that are handed out beyond the one each worker is busy with.
_AHEAD: Final = 2


class Executor(Protocol):
    """Who works, in a block at whose end everything that was started ends."""

    def __enter__(self) -> Self:
        """Nothing is started yet."""

    def __exit__(self, *error: object) -> None:
        """Nobody works any more."""

    def map(self, function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Iterator[_Result]:
        """Results of a function of a module's top level for each job, in order; see `Workers`."""


class Workers:
    """Processes that are started when they are first needed, and end with the block.

    Args:
        num_jobs: processes; 1 works in this one.
    """

    def __init__(self, num_jobs: int = 1) -> None:
        self._num_jobs = num_jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Iterator[_Result]:
        """Results of `function` for each job, in order.

        Args:
            function: of a module's top level, so that other processes find it.
            jobs: taken one by one, a few ahead of the results.

        Raises:
            UserError: a job fails with one, or a worker was killed.
        """
        if self._num_jobs == 1:
            yield from map(function, jobs)
            return
        if self._pool is None:
            # A worker takes seconds to start: it imports what this process has imported.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._num_jobs, mp_context=context, initializer=_follow_parent
            )
        waiting: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                waiting.append(self._pool.submit(function, job))
                if len(waiting) >= self._num_jobs * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, perhaps because memory ran out",
                "run the same command again, it goes on where it stopped; a lower --nj takes less "
                "memory",
            ) from None


def _follow_parent() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent alone says so and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
