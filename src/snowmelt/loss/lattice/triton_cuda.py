"""How are the lattice recursions computed on a CUDA device? One program per utterance, in Triton.

The steps are those of `reference`: every arc leads from step k to step k + 1, so a program handles
all rows of a step at once, in the log domain and in float64. A row needs its lower neighbour of the
step before; neighbours meet through a table in the device's memory, with a barrier after each step.

NO GPU HAS RUN THIS YET. It has been checked with Triton's interpreter (TRITON_INTERPRET=1) on the
CPU, against `reference` and sums over all paths. How fast it is, and whether it compiles on every
device that Triton knows, has not been tried.

Invariant: the same mathematics as `reference`; utterances do not meet.

Source: k2, k2/python/csrc/torch/mutual_information_cuda.cu (the meaning, not the method).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["triton_forward_backward"]


def triton_forward_backward(
    px: Tensor, py: Tensor, boundary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`lattice_forward_backward` as a Triton kernel; arguments and results are the same."""
    num_utterances, num_rows, num_frames = py.shape
    symbol_frames = px.size(2)  # T + 1 for the regular type
    is_regular = symbol_frames == num_frames + 1
    scores = torch.zeros(num_utterances, dtype=torch.float64, device=px.device)
    px_grad, py_grad = torch.zeros_like(px), torch.zeros_like(py)
    px_grad, py_grad = px_grad.contiguous(), py_grad.contiguous()
    num_steps = num_frames + (num_rows - 1 if is_regular else 0)
    # A row more on each side: a neighbour that does not exist is reached by nothing.
    shape = (num_utterances, num_steps + 1, num_rows + 2)
    p = torch.full(shape, -torch.inf, dtype=torch.float64, device=px.device)
    mass = torch.zeros(shape, dtype=torch.float64, device=px.device)
    if num_utterances:
        _forward_backward[(num_utterances,)](
            px.contiguous(),
            py.contiguous(),
            boundary.to(px.device).contiguous(),
            p,
            mass,
            scores,
            px_grad,
            py_grad,
            num_rows,
            num_frames,
            symbol_frames,
            num_steps,
            SKEW=int(is_regular),
            BLOCK=triton.next_power_of_2(num_rows),
        )
    return scores.to(px.dtype), px_grad, py_grad


@triton.jit  # type: ignore[untyped-decorator]
def _forward_backward(
    px: Any,
    py: Any,
    boundary: Any,
    p: Any,
    mass: Any,
    scores: Any,
    px_grad: Any,
    py_grad: Any,
    num_rows: Any,
    num_frames: Any,
    symbol_frames: Any,
    num_steps: Any,
    SKEW: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    n = tl.program_id(0).to(tl.int64)
    s_begin, t_begin = tl.load(boundary + 4 * n), tl.load(boundary + 4 * n + 1)
    last_row = tl.load(boundary + 4 * n + 2) - s_begin
    frames = tl.load(boundary + 4 * n + 3) - t_begin
    last_step = frames + SKEW * last_row

    row = tl.arange(0, BLOCK)
    width = num_rows + 2
    table = n * (num_steps + 1) * width + row + 1  # column row + 1 of step 0
    symbols = px + (n * (num_rows - 1) + s_begin) * symbol_frames + t_begin
    blanks = py + (n * num_rows + s_begin) * num_frames + t_begin
    symbols_grad = px_grad + (n * (num_rows - 1) + s_begin) * symbol_frames + t_begin
    blanks_grad = py_grad + (n * num_rows + s_begin) * num_frames + t_begin
    minus_infinity = float("-inf")

    is_row = row <= last_row
    node = tl.where(row == 0, 0.0, minus_infinity).to(tl.float64)
    tl.store(p + table, node, mask=is_row)
    tl.debug_barrier()
    k = last_step * 0
    while k < last_step:
        t = k - SKEW * row
        has_blank = is_row & (t >= 0) & (t < frames)
        # The symbol arc that leads into this row, from the one below.
        t_below = k - SKEW * (row - 1)
        has_symbol = is_row & (row > 0) & (t_below >= 0) & (t_below < frames + SKEW)
        blank = tl.load(blanks + row * num_frames + t, mask=has_blank, other=minus_infinity)
        symbol = tl.load(
            symbols + (row - 1) * symbol_frames + t_below, mask=has_symbol, other=minus_infinity
        )
        below = tl.load(p + table + k * width - 1, mask=is_row, other=minus_infinity)
        by_blank = node + blank.to(tl.float64)
        by_symbol = below + symbol.to(tl.float64)
        largest = tl.maximum(by_blank, by_symbol)
        # Two impossible ways: their difference would be nan.
        offset = tl.where(largest == minus_infinity, 0.0, largest)
        node = offset + tl.log(tl.exp(by_blank - offset) + tl.exp(by_symbol - offset))
        k += 1
        tl.store(p + table + k * width, node, mask=is_row)
        tl.debug_barrier()

    score = tl.load(p + n * (num_steps + 1) * width + last_step * width + last_row + 1)
    tl.store(scores + n, score)
    # Not finite: no gradient. The comparison is false for nan.
    is_finite = (score > minus_infinity) & (score < float("inf"))
    tl.store(mass + table + last_step * width, tl.where(row == last_row, 1.0, 0.0), mask=is_row)
    tl.debug_barrier()
    k = tl.where(is_finite, last_step, 0)
    while k > 0:
        k -= 1
        t = k - SKEW * row
        has_blank = is_row & (t >= 0) & (t < frames)
        has_symbol = (row < last_row) & (t >= 0) & (t < frames + SKEW)
        here = tl.load(p + table + k * width, mask=is_row, other=minus_infinity)
        blank = tl.load(blanks + row * num_frames + t, mask=has_blank, other=minus_infinity)
        symbol = tl.load(symbols + row * symbol_frames + t, mask=has_symbol, other=minus_infinity)
        after = table + (k + 1) * width
        # The share that a way has in the node it leads to.
        next_node = tl.load(p + after, mask=is_row, other=minus_infinity)
        next_above = tl.load(p + after + 1, mask=is_row, other=minus_infinity)
        by_blank = here + blank.to(tl.float64)
        by_symbol = here + symbol.to(tl.float64)
        blank_share = tl.where(by_blank == minus_infinity, 0.0, tl.exp(by_blank - next_node))
        symbol_share = tl.where(by_symbol == minus_infinity, 0.0, tl.exp(by_symbol - next_above))
        blank_share *= tl.load(mass + after, mask=is_row, other=0.0)
        symbol_share *= tl.load(mass + after + 1, mask=is_row, other=0.0)
        tl.store(blanks_grad + row * num_frames + t, blank_share, mask=has_blank)
        tl.store(symbols_grad + row * symbol_frames + t, symbol_share, mask=has_symbol)
        tl.store(mass + table + k * width, blank_share + symbol_share, mask=is_row)
        tl.debug_barrier()
