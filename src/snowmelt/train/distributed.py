"""Who else trains this model? Process groups of data-parallel training, on torchrun's engine.

`launch` starts the processes of one machine; inside each, `process_group` joins them. A process
started by torchrun itself finds the same environment and needs no launch.

Invariant: one thread a process on a CPU; a single process needs no process group at all.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

__all__ = ["Ranks", "launch", "num_cores", "process_group", "sum_over_ranks"]

_P = ParamSpec("_P")


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

    Args:
        world_size: number of processes; 1 calls the function here.
        function: a module-level function; its arguments are pickled.

    Raises:
        ChildFailedError: a process failed; it names the rank.
    """
    if world_size == 1:
        function(*args, **kwargs)
        return
    # Each process computes on a core of its own: more threads would fight for the same cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // world_size)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{_free_port()}",
        rdzv_configs={"rank": 0, "timeout": 60},
        max_restarts=0,
        start_method="spawn",
        monitor_interval=0.1,
        run_id="snowmelt",
    )
    elastic_launch(config, function)(*args, **kwargs)


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment describes, and leave it at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: tuple[float, ...], ranks: Ranks, device: torch.device) -> list[float]:
    """Element-wise sum of `values` over all processes, in float64 where the device has it."""
    if ranks.world_size == 1:
        return list(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    summed = torch.tensor(values, dtype=dtype, device=device)
    dist.all_reduce(summed)
    return [float(v) for v in summed]


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
