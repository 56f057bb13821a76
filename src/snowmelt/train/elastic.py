"""Who starts the processes of this machine, and starts them again when one has died?

`launch` runs a function in each of them, in an environment like the one torchrun makes; a process
that torchrun has started needs no launch.

Invariant: when one of several processes fails, all end, and its reason is the one that counts. A
mistake of the user is never tried again.
"""

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from threading import Event
from typing import Any, Final, NamedTuple, TypeVarTuple

import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from snowmelt.core.errors import ConfigError, TrainingError, UserError
from snowmelt.core.files import refusal
from snowmelt.core.interrupt import stop_requests

__all__ = ["is_lost_connection", "launch", "num_cores", "restart_count"]

_logger = logging.getLogger(__name__)

_Ts = TypeVarTuple("_Ts")

# Others notice within this time that one has failed, and end by themselves; then they are killed.
_GRACE_S: Final = 10.0
# After a second Ctrl-C: time to remove a file that is half written.
_GOODBYE_S: Final = 1.0

# The variable in which torchrun tells how often the processes were started again.
_RESTART_COUNT: Final = "TORCHELASTIC_RESTART_COUNT"

_OUT_OF_MEMORY: Final = (
    "when it was the system, memory ran out: lower --max-duration or --world-size"
)


class _Report(NamedTuple):
    """Why a process ended, as it says itself.

    `is_consequence`: it only noticed that others had gone.
    """

    rank: int
    error: BaseException
    is_consequence: bool


_Reports = SimpleQueue[_Report]


class _Failure(NamedTuple):
    """Why all processes ended, and whether another try may go better."""

    error: BaseException
    may_restart: bool


def launch(
    world_size: int,
    function: Callable[[*_Ts], None],
    *args: *_Ts,
    max_restarts: int = 0,
    master_port: int = 0,
    advice: Callable[[], str] | None = None,
) -> None:
    """Run `function(*args)` in `world_size` processes of this machine and wait for them.

    Signals that ask this process to stop are passed on as SIGTERM: it is `function` that decides
    how to stop, by raising KeyboardInterrupt. It is also `function` that goes on where the run
    stood, when `restart_count()` is above 0.

    Args:
        world_size: number of processes; 1, without restarts, calls the function here.
        function: a module-level function; its arguments are pickled.
        max_restarts: times that all are started again because one was killed, crashed or raised
            anything but a UserError.
        master_port: port on which they meet; 0 is a free one. MASTER_PORT of the environment goes
            before.
        advice: what to do when a process was lost, asked for when it happens.

    Raises:
        UserError: raised by one of them.
        TrainingError: one was killed or crashed; the text names it.
        ConfigError: there is no such port.
        KeyboardInterrupt: they were asked to stop.
        RuntimeError: any other failure; the text holds the traceback of the process that failed.
    """
    if world_size == 1 and max_restarts == 0:
        function(*args)
        return
    # Each process computes on its own cores: more threads would fight for the same ones.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // world_size)))
    port = _wanted_port(master_port)
    pids: list[int] = []
    with stop_requests(lambda: _terminate(pids)) as stop_requested:
        for restart in range(max_restarts + 1):
            environment = {
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port or _free_port()),
                _RESTART_COUNT: str(restart),
            }
            failure = _run_all(world_size, environment, function, args, pids, stop_requested)
            if failure is None:
                return
            if not failure.may_restart or restart == max_restarts or stop_requested.is_set():
                raise _with_advice(failure, advice)
            _logger.warning(
                "%s\nStarting again (%d of at most %d times)",
                failure.error,
                restart + 1,
                max_restarts,
            )


def restart_count() -> int:
    """How often the processes of this run have been started again, by `launch` or torchrun."""
    return int(os.environ.get(_RESTART_COUNT, "0"))


def is_lost_connection(error: BaseException | None) -> bool:
    """Whether an error of torch says no more than that other processes cannot be reached."""
    if "EADDRINUSE" in str(error):  # the port is somebody else's
        return False
    # Gloo has no class of its own, but its errors begin with the place in its sources.
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_all(
    world_size: int,
    environment: dict[str, str],
    function: Callable[..., None],
    args: tuple[Any, ...],
    pids: list[int],
    stop_requested: Event,
) -> _Failure | None:
    """Run all processes once, until they are done or one has failed and none is left.

    `pids` holds their ids while they run.
    """
    reports: _Reports = get_context("spawn").SimpleQueue()
    processes = spawn(
        _run_rank, (environment, reports, function, args), nprocs=world_size, join=False
    )
    pids[:] = processes.pids()
    if stop_requested.is_set():  # while they were being started
        _terminate(pids)
    first_failed = None
    try:
        while not processes.join(grace_period=_GRACE_S):
            pass
    except ProcessExitedException as error:
        first_failed = error.error_index
    finally:
        for process in processes.processes:
            process.join(_GOODBYE_S)
            process.kill()
            process.join()
        pids.clear()
    told = []
    while not reports.empty():
        told.append(reports.get())
    exit_codes = [process.exitcode or 0 for process in processes.processes]
    if first_failed is None and not told:
        return None
    return _why(told, exit_codes, first_failed, is_stopping=stop_requested.is_set())


def _run_rank(
    rank: int,
    environment: dict[str, str],
    reports: _Reports,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    exit_code = 0
    try:
        function(*args)
    except KeyboardInterrupt as error:
        reports.put(_Report(rank, error, is_consequence=False))
    except UserError as error:
        reports.put(_Report(rank, error, is_lost_connection(error.__cause__)))
        exit_code = 1
    except Exception as error:
        refused = refusal(error) if isinstance(error, OSError) else None
        size = environment["WORLD_SIZE"]
        bug = RuntimeError(f"process {rank} of {size}:\n{traceback.format_exc()}")
        reports.put(_Report(rank, refused or bug, is_lost_connection(error)))
        exit_code = 1
    # At once: an ordinary end may abort in a process group that was not left (see `process_group`).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _why(
    told: Sequence[_Report],
    exit_codes: Sequence[int],
    first_failed: int | None,
    *,
    is_stopping: bool,
) -> _Failure:
    """The failure that caused the others."""
    causes = [
        report.error
        for report in told
        if not report.is_consequence and not isinstance(report.error, KeyboardInterrupt)
    ]
    if causes:
        return _Failure(causes[0], may_restart=not isinstance(causes[0], UserError))
    # Ended by a signal they could report nothing. Those that are left are asked to stop too.
    if is_stopping or first_failed is None:
        return _Failure(KeyboardInterrupt(), may_restart=False)
    have_told = {report.rank for report in told}
    silent = [
        rank
        for rank, code in enumerate(exit_codes)
        if rank not in have_told and code not in (0, -signal.SIGTERM)
    ]
    # SIGTERM is how the others are ended when one has failed.
    if first_failed not in have_told:
        silent.insert(0, first_failed)
    if not silent:
        return _Failure(told[0].error, may_restart=True)
    rank = silent[0]
    end, hint = _end_of(exit_codes[rank])
    lost = TrainingError(f"process {rank} of {len(exit_codes)} {end}", hint)
    return _Failure(lost, may_restart=True)


def _end_of(exit_code: int) -> tuple[str, str]:
    """What an exit code says of a process that has told nothing, and what may help."""
    if exit_code > 0:
        return f"ended with exit code {exit_code}", ""
    if exit_code == -signal.SIGKILL:
        return "was killed (SIGKILL)", _OUT_OF_MEMORY
    names = {-s: s.name for s in signal.Signals}
    return f"crashed ({names.get(exit_code, f'signal {-exit_code}')})", ""


def _with_advice(failure: _Failure, advice: Callable[[], str] | None) -> BaseException:
    """The error, which names the next step where a process was lost."""
    error = failure.error
    if advice is None or not failure.may_restart or not isinstance(error, UserError):
        return error
    return TrainingError(error.message, "; ".join(h for h in (advice(), error.hint) if h))


def _terminate(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _wanted_port(master_port: int) -> int:
    """The port that is asked for, or 0."""
    text = os.environ.get("MASTER_PORT") or str(master_port)
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    where = "MASTER_PORT" if "MASTER_PORT" in os.environ else "--master-port"
    raise ConfigError(f"{where} {text} is no port", "choose one from 1024 to 65535")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
