"""How much memory can still be taken? A GPU says it; a CPU's is the least that any limit leaves.

Invariant: only asks; where the system does not tell, the answer is None or an upper bound.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["free_memory"]


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can still be taken on a device; None if the system does not tell.

    For a CPU what the system and the control groups of this process (containers, job schedulers)
    leave; a GPU that shares the memory of the CPU is asked for as one.

    Args:
        device: where a model is trained.
        root: where `proc` and `sys` are.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    found = [_available_bytes(root / "proc" / "meminfo"), *_group_bytes(root)]
    return min((x for x in found if x is not None), default=_physical_bytes())


def _available_bytes(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group_bytes(root: Path) -> Iterator[int]:
    """What each control group that this process is in leaves, of either version of them."""
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys" / "fs" / "cgroup" / controllers
        limit, used, idle = "memory.max", "memory.current", "inactive_file"
        if controllers:
            limit, used, idle = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_" + idle
        own = top / name.strip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(top):
                break
            numbers = [_number(_lines(folder / file)) for file in (limit, used)]
            if numbers[0] is None or numbers[1] is None:
                continue
            # Cached files are given up before anybody is refused.
            cached = [x.split()[1] for x in _lines(folder / "memory.stat") if x.split()[0] == idle]
            yield max(0, numbers[0] - numbers[1] + int(*cached))


def _number(lines: list[str]) -> int | None:
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _physical_bytes() -> int | None:
    """All memory there is: an upper bound where nothing better is known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # no such name, or no such function
        return None
