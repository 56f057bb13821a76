"""Who else trains this model? The process group of data-parallel training, seen from one process.

`process_group` joins the others through the environment variables that torchrun and `launch`
define; a few operations on all of them stand beside it.

Invariant: a single process needs no process group at all.
"""

import atexit
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from snowmelt.core.errors import CheckpointError, ConfigError, TrainingError, UserError
from snowmelt.core.files import require_file
from snowmelt.train.elastic import is_lost_connection

__all__ = [
    "Ranks",
    "any_rank",
    "broadcast_from_main",
    "file_from_main",
    "process_group",
    "sum_over_ranks",
]

_T = TypeVar("_T")

_GO_ON: Final = "the first one that failed says why; --resume auto goes on from the last checkpoint"

# A file travels in pieces of this size.
_PIECE_BYTES: Final = 1 << 26

# Gloo's errors begin with it.
_SOURCE_PLACE: Final = re.compile(r"\[/\S+\] ")

# Where the main process tells the others the port of its store, see `_own_store`.
_STORE_PORT: Final = "snowmelt/store_port"
# A store that does not answer within this time belongs to processes that are gone.
_STORE_TIMEOUT: Final = timedelta(seconds=5)
# As long as torch waits for the store of torchrun itself.
_STORE_PATIENCE_S: Final = 300.0


@dataclass(frozen=True)
class Ranks:
    """This process among all: `rank` in [0, world_size)."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment describes, and leave it at the end.

    On CUDA process r of a machine takes GPU r of those it may see (CUDA_VISIBLE_DEVICES).

    Raises:
        ConfigError: the environment does not lead to the others, or there are too few GPUs.
        TrainingError: others ended while this process needed them.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        _take_gpu()
    try:
        _join("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, KeyError, RuntimeError) as error:
        is_of_torch = isinstance(error, dist.DistError) or is_lost_connection(error)
        if isinstance(error, RuntimeError) and not is_of_torch:
            raise
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise ConfigError(
            f"the {world_size} processes cannot meet at {where}: {_reason(error)}",
            "--master-port names another port; on several machines torchrun sets addresses",
        ) from error
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    try:
        yield ranks
    except BaseException as error:
        # Not now: leaving makes the others fail, and this one shall be the first to report. Not
        # never: torch's threads would abort the process at its end.
        atexit.register(dist.destroy_process_group)
        if not is_lost_connection(error):
            raise
        raise TrainingError(
            f"process {ranks.rank} of {world_size} has lost the others: {_reason(error)}",
            _GO_ON,
        ) from error
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


def broadcast_from_main(load: Callable[[], _T], ranks: Ranks) -> _T:
    """What `load` returns in the main process; the others get a copy and call nothing.

    All processes must call this. A large value takes four times its size in memory for a moment.

    Args:
        load: returns something that can be pickled.
        ranks: this process among all.

    Raises:
        UserError: `load` raised it; all processes raise it then.
    """
    if ranks.world_size == 1:
        return load()
    outcome: list[Any] = [None, None]
    if ranks.is_main:
        try:
            outcome[0] = load()
        except UserError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    loaded, refused = outcome
    if refused is not None:
        raise refused
    return loaded  # type: ignore[no-any-return]


@contextmanager
def file_from_main(path: Path, ranks: Ranks, device: torch.device) -> Iterator[Path]:
    """A checkpoint of the main process's machine, by a name under which this process can read it.

    Where all see the same file, on one machine or in a shared folder, that is `path`. Elsewhere the
    others get a copy, which lasts as long as the block. All processes must call this.

    Raises:
        CheckpointError: the main process cannot read the file; all processes raise it then.
    """
    if ranks.world_size == 1:
        yield path
        return
    wanted = broadcast_from_main(
        lambda: _stamp(require_file(path, "checkpoint", error=CheckpointError)), ranks
    )
    if not any_rank(not path.is_file() or _stamp(path) != wanted, ranks, device):
        yield path
        return
    with TemporaryDirectory(prefix="snowmelt-") as folder:
        name = path if ranks.is_main else Path(folder) / path.name
        mode = "rb" if ranks.is_main else "wb"
        with name.open(mode) as stream:
            for begin in range(0, wanted[0], _PIECE_BYTES):
                size = min(_PIECE_BYTES, wanted[0] - begin)
                piece = bytearray(stream.read(size) if ranks.is_main else size)
                tensor = torch.frombuffer(piece, dtype=torch.uint8).to(device)
                dist.broadcast(tensor, src=0)
                if not ranks.is_main:
                    stream.write(tensor.cpu().numpy())
        yield name


def _stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change: a file of the same name may be another run's."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _take_gpu() -> None:
    local_rank, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= visible:
        raise ConfigError(
            f"process {local_rank} of this machine needs GPU {local_rank}, {visible} are visible",
            "start fewer processes, or name more GPUs in CUDA_VISIBLE_DEVICES",
        )
    torch.cuda.set_device(local_rank)


def _join(backend: str) -> None:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend)
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=_own_store(rank), rank=rank, world_size=world_size)


def _own_store(rank: int) -> TCPStore:
    """A store that these processes alone have written to.

    Torchrun's own store outlives the processes: after a restart they would find the addresses of
    those that are gone, and wait for them. No number tells one start from another, because the
    machines count restarts each for itself. But of the stores only one is alive.
    """
    host, shared = os.environ["MASTER_ADDR"], next(iter(rendezvous("env://")))[0]
    if rank == 0:
        own = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        shared.set(_STORE_PORT, str(own.port))
        return own
    deadline = monotonic() + _STORE_PATIENCE_S
    while True:
        port = int(shared.get(_STORE_PORT))
        try:
            return TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=_STORE_TIMEOUT
            )
        except dist.DistError:
            if monotonic() > deadline:
                raise


def _reason(error: BaseException) -> str:
    """What torch says in its first sentence, without the place in its sources."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return _SOURCE_PLACE.sub("", first_line).partition(". ")[0]
