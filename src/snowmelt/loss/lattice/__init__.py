"""How probable is an utterance, summed over all its alignments, and which arcs carry the mass?

One function, `lattice_forward_backward`, and three programs behind it: compiled loops on the CPU
(`numba_cpu`), a Triton kernel on CUDA devices where Triton is installed (`triton_cuda`), and
vectorised PyTorch everywhere else (`reference`).

Invariant: all programs compute in float64, agree to rounding, and keep utterances apart: nothing
one utterance contains can change another's result.
"""

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from snowmelt.loss.lattice.reference import reference_forward_backward

__all__ = ["lattice_forward_backward"]

_Program = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def lattice_forward_backward(
    px: Tensor, py: Tensor, boundary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Total log-probability of each lattice and the occupation probability of each arc.

    Args:
        px: (N, S, T+1) for the regular type or (N, S, T) for the others, float32 or float64;
            log-probability of emitting symbol s from node (s, t).
        py: (N, S+1, T), same type; log-probability of blank from node (s, t).
        boundary: (N, 4) int64 rows [s_begin, t_begin, s_end, t_end], already validated.

    Returns:
        scores (N,), the log-probability of node (s_end, t_end); px_grad and py_grad in the shapes
        of px and py, the probability that a path takes the arc (the derivative of scores), zero
        outside the boundary. All in the type of px and without autograd history. Where the score
        is not finite the occupations are zero.
    """
    with torch.no_grad():
        return _program(px.device.type)(px, py, boundary)


@functools.cache
def _program(device_type: str) -> _Program:
    # Imported at first use: compiled loops cost half a second that a reader of logits or a GPU run
    # need not pay.
    if device_type == "cpu":
        from snowmelt.loss.lattice.numba_cpu import numba_forward_backward

        return numba_forward_backward
    if device_type == "cuda" and importlib.util.find_spec("triton") is not None:
        from snowmelt.loss.lattice.triton_cuda import triton_forward_backward

        return triton_forward_backward
    return reference_forward_backward
