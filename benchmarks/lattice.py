"""Forward and backward through the transducer lattice: compiled loops, and torch operations."""

from collections.abc import Callable

import torch

from snowmelt.loss.lattice.numba_cpu import numba_forward_backward
from snowmelt.loss.lattice.reference import reference_forward_backward

__all__ = ["benchmarks"]

# A batch of sixteen utterances of 10 s.
_N, _S, _T = 16, 40, 250


def benchmarks() -> dict[str, Callable[[], object]]:
    """Name -> what is measured."""
    generator = torch.Generator().manual_seed(0)
    px = torch.randn(_N, _S, _T + 1, generator=generator) - 3.0
    px[:, :, -1] = -torch.inf
    py = torch.randn(_N, _S + 1, _T, generator=generator) - 0.5
    boundary = torch.tensor([0, 0, _S, _T]).expand(_N, 4).contiguous()
    sizes = f"N {_N}, S {_S}, T {_T}"
    return {
        f"lattice, numba, {sizes}": lambda: numba_forward_backward(px, py, boundary),
        f"lattice, torch operations, {sizes}": lambda: reference_forward_backward(px, py, boundary),
    }
