"""How do tensors reach the compiled frames of an LSTM layer? In packed form, and in parts.

The rows of a batch do not meet in the recurrence, so each thread takes some of them through all
frames, and threads never wait for one another.

Invariant: never starts more threads than torch itself would use, and none that outlive the call.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor

from snowmelt.models.lstm import cpu_loops
from snowmelt.models.lstm.cpu_loops import COLUMNS, HAS_BFLOAT16_PRODUCTS, LANES

__all__ = ["cpu_backward", "cpu_forward", "fits"]

# Fewer rows times frames than this are done before a second thread would have started.
_LEAST_ROWS_PER_THREAD: Final = 32


def fits(weight_hh: Tensor) -> bool:
    """Whether the loops can do the work: the sizes of weight_hh (4H, P) are theirs."""
    width, proj_size = weight_hh.shape
    return width % (4 * LANES) == 0 and proj_size % LANES == 0


def cpu_forward(
    gates_in: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments as in `lstm_recurrence`.

    Returns:
        Gates after their activations (T, N, 4H) float32, h (T + 1, N, P) in the type of `gates_in`
        and c (T + 1, N, H) float32, these two from the frame before on.
    """
    num_frames, num_rows, width = gates_in.shape
    size, proj_size = width // 4, weight_hh.size(1)
    wanted, dtype = gates_in.dtype, _products_type(gates_in)
    gates_in = gates_in.detach().to(dtype).contiguous()
    gates = torch.empty(gates_in.shape)
    hs = torch.empty(num_frames + 1, num_rows, proj_size, dtype=dtype)
    cs = torch.empty(num_frames + 1, num_rows, size)
    hs[0], cs[0] = h, c
    arrays = [
        _array(gates_in),
        _packed(weight_hh.t(), dtype),
        _packed(None if weight_hr is None else weight_hr.t(), dtype),
        *(_array(x) for x in (hs, cs, gates)),
        _sums(num_rows, width),
        _array(torch.empty(num_rows, size, dtype=dtype)),
        _sums(num_rows, proj_size),
    ]
    _in_parts(cpu_loops.forward, arrays, num_rows, num_frames)
    return gates, hs.to(wanted), cs


def cpu_backward(
    grad_out: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, gates: Tensor, cs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one layer, but for the weights.

    Args:
        grad_out: (T, N, P), in the type of the forward's `gates_in`.
        weight_hh, weight_hr: as in `lstm_recurrence`.
        gates, cs: of `cpu_forward`.

    Returns:
        Gradients of the gates' input (T, N, 4H) and of h at every frame (T, N, P), and
        sigmoid(o) tanh(c) at every frame (T, N, H).
    """
    num_frames, num_rows, width = gates.shape
    size, proj_size = width // 4, weight_hh.size(1)
    wanted, dtype = grad_out.dtype, _products_type(grad_out)
    grad_gates = torch.empty(num_frames, num_rows, width, dtype=dtype)
    grad_hs = torch.empty(num_frames, num_rows, proj_size, dtype=dtype)
    ms = torch.empty(num_frames, num_rows, size, dtype=dtype)
    arrays = [
        _array(grad_out.detach().to(dtype).contiguous()),
        _packed(weight_hh, dtype),
        _packed(weight_hr, dtype),
        *(_array(x) for x in (gates, cs, grad_gates, grad_hs, ms)),
        _sums(num_rows, proj_size),
        _sums(num_rows, size),
        _array(torch.zeros(num_rows, size)),
    ]
    _in_parts(cpu_loops.backward, arrays, num_rows, num_frames)
    return grad_gates.to(wanted), grad_hs.to(wanted), ms.to(wanted)


def _products_type(x: Tensor) -> torch.dtype:
    """bfloat16 only where the processor gains by it; elsewhere products are of float32."""
    return x.dtype if HAS_BFLOAT16_PRODUCTS else torch.float32


def _packed(weight: Tensor | None, dtype: torch.dtype) -> npt.NDArray[Any]:
    """The weights (K, C) of y = x weight in the order of their use, for products of `dtype`."""
    if weight is None:
        return _array(torch.empty(0, 0, COLUMNS, dtype=_packed_type(dtype)))
    depth, num_columns = weight.shape
    steps = depth // 2 if dtype == torch.bfloat16 else depth
    num_blocks = -(-num_columns // COLUMNS)
    packed = torch.empty(num_blocks, steps, COLUMNS, dtype=_packed_type(dtype))
    if num_columns % COLUMNS > 0:
        packed[-1] = 0
    pack = cpu_loops.pack_pairs if dtype == torch.bfloat16 else cpu_loops.pack
    pack(_array(weight.detach().to(dtype)), _array(packed))
    return _array(packed)


def _packed_type(dtype: torch.dtype) -> torch.dtype:
    return torch.uint32 if dtype == torch.bfloat16 else torch.float32


def _sums(num_rows: int, num_columns: int) -> npt.NDArray[Any]:
    """Room for the sums of a product, with whole blocks."""
    return _array(torch.empty(num_rows, -(-num_columns // COLUMNS) * COLUMNS))


def _array(x: Tensor) -> npt.NDArray[Any]:
    """Numpy has no bfloat16: its bits travel as uint16."""
    array: npt.NDArray[Any] = (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
    return array


def _in_parts(
    loop: Callable[..., object], arrays: list[npt.NDArray[Any]], num_rows: int, num_frames: int
) -> None:
    """Call a loop for all rows, in as many threads as are worth it."""
    most = num_rows * num_frames // _LEAST_ROWS_PER_THREAD
    num_parts = max(1, min(torch.get_num_threads(), num_rows, most))
    if num_parts == 1:
        loop(*arrays, 0, num_rows)
        return
    limits = [num_rows * part // num_parts for part in range(num_parts + 1)]
    with ThreadPoolExecutor(num_parts) as executor:
        jobs = [executor.submit(loop, *arrays, first, end) for first, end in pairwise(limits)]
        for job in jobs:
            job.result()
