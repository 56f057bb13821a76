"""Who else trains this model? Process groups of data-parallel training.

`launch` starts the processes of one machine; inside each, `process_group` joins them through the
environment variables that torchrun defines. A process that torchrun has started needs no launch.

Invariant: a single process needs no process group at all; when one of several fails, all end, and
its reason is the one that is raised.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import Any, Final, ParamSpec

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from snowmelt.core.errors import UserError
from snowmelt.core.files import refusal
from snowmelt.core.interrupt import stop_requests

__all__ = ["Ranks", "any_rank", "launch", "num_cores", "process_group", "sum_over_ranks"]

_P = ParamSpec("_P")
_Reports = SimpleQueue[BaseException]

# Others notice within this time that one has failed, and end by themselves; then they are killed.
_GRACE_S: Final = 10.0
# After a second Ctrl-C: time to remove a file that is half written.
_GOODBYE_S: Final = 1.0


@dataclass(frozen=True)
class Ranks:
    """This process among all: `rank` in [0, world_size)."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def launch(
    world_size: int, function: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs
) -> None:
    """Run `function(*args)` in `world_size` processes of this machine and wait for them.

    Signals that ask this process to stop are passed on as SIGTERM: it is `function` that decides
    how to stop, by raising KeyboardInterrupt.

    Args:
        world_size: number of processes; 1 calls the function here.
        function: a module-level function; its arguments are pickled.

    Raises:
        UserError: raised by one of them, or one was killed by the system.
        KeyboardInterrupt: they were asked to stop.
        RuntimeError: any other failure; the text holds the traceback of the process that failed.
    """
    if world_size == 1:
        function(*args, **kwargs)
        return
    # Each process computes on its own cores: more threads would fight for the same ones.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // world_size)))
    reports: _Reports = get_context("spawn").SimpleQueue()
    processes = spawn(
        _run_rank,
        (world_size, _free_port(), reports, function, args, kwargs),
        nprocs=world_size,
        join=False,
    )
    try:
        with stop_requests(lambda: _terminate(processes.pids())) as stop_requested:
            while not processes.join(grace_period=_GRACE_S):
                pass
    except ProcessExitedException as error:
        raise _cause(error, reports, is_stopping=stop_requested.is_set()) from None
    finally:
        for process in processes.processes:
            process.join(_GOODBYE_S)
            process.kill()
            process.join()
    if not reports.empty():
        raise reports.get()


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment describes, and leave it at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Ranks(dist.get_rank(), dist.get_world_size())
    # Not after an error: leaving makes the others fail, and this one shall be the first to report.
    dist.destroy_process_group()


def sum_over_ranks(values: tuple[float, ...], ranks: Ranks, device: torch.device) -> list[float]:
    """Element-wise sum of `values` over all processes, in float64 where the device has it."""
    if ranks.world_size == 1:
        return list(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    summed = torch.tensor(values, dtype=dtype, device=device)
    dist.all_reduce(summed)
    return [float(v) for v in summed]


def any_rank(flag: bool, ranks: Ranks, device: torch.device) -> bool:
    """Whether `flag` is true in any process; all get the same answer."""
    return sum_over_ranks((float(flag),), ranks, device)[0] > 0.0


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    reports: _Reports,
    function: Callable[..., None],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    exit_code = 0
    try:
        function(*args, **kwargs)
    except KeyboardInterrupt as error:
        reports.put(error)
    except UserError as error:
        reports.put(error)
        exit_code = 1
    except Exception as error:
        refused = refusal(error) if isinstance(error, OSError) else None
        bug = RuntimeError(f"process {rank} of {world_size}:\n{traceback.format_exc()}")
        reports.put(refused or bug)
        exit_code = 1
    # At once: an ordinary end may abort in a process group that was not left (see `process_group`).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _cause(error: ProcessExitedException, reports: _Reports, *, is_stopping: bool) -> BaseException:
    """Why the processes ended: the others' failures are consequences of the first one's."""
    report = None if reports.empty() else reports.get()
    if isinstance(report, UserError):
        return report
    # Ended by a signal it could report nothing.
    if error.signal_name is not None:
        if is_stopping:
            return KeyboardInterrupt()
        if error.signal_name == "SIGKILL":
            return UserError(
                f"process {error.error_index} was killed by the system",
                "this happens when memory runs out: lower --max-duration or --world-size",
            )
        return error
    return report or error


def _terminate(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
