"""How does the CPU gate frames and convolve them over time with few passes over memory?

The frames of a slot go through their gate into a buffer with zeros at both ends. From there sums of
four neighbouring frames are made at once, in registers over all taps. The gate is computed again
for the gradient: what is kept is its input alone.

Invariant: no frame sees another slot's; sums are in float32. Frames and their gradients are float32
or bfloat16's bits as uint16; buffers and weights are as wide as `padded` says, and sums of the
columns beyond the channels go nowhere.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from snowmelt.core.compiled import compiled_with, written_in_llvm
from snowmelt.models.cpu_elements import ONE, ZERO, gate, narrow, widen

__all__ = ["gated_convolution", "gated_convolution_gradient", "padded"]

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float32]

# Sums of so many neighbouring frames, or taps, are made together, of so many channels.
_GROUP: Final = 4
_LANES: Final = 16


def padded(size: int, is_channels: bool = False) -> int:
    """`size` frames, taps or channels rounded up to whole groups."""
    unit = _LANES if is_channels else _GROUP
    return -(-size // unit) * unit


@compiled_with("contract")
def gated_convolution(
    x: _Array, slots: Any, num_taps: int, weight: _Floats, bias: _Floats, y: _Array
) -> None:
    """Gate and causal depthwise convolution.

    Args:
        x: (M, 2 C), channels and their gates.
        slots: (N + 1,) int64, where each begins, and M.
        num_taps: K.
        weight: (padded K, padded C), the tap of the frame itself is row K - 1; zeros behind it.
        bias: (padded C,).
        y: (M, C), filled.
    """
    num_channels, width = y.shape[1], weight.shape[1]
    frames = np.zeros((_longest(slots) + 2 * weight.shape[0] + _GROUP, width), np.float32)
    sums = np.empty((_GROUP, width), np.float32)
    for n in range(slots.size - 1):
        begin, size = slots[n], slots[n + 1] - slots[n]
        _gate_into(frames, x, begin, size, num_taps - 1)
        for t in range(0, size, _GROUP):
            for j in range(_GROUP):
                sums[j] = bias
            _add_correlation(sums, weight, frames, t, weight.shape[0])
            for j in range(min(_GROUP, size - t)):
                for c in range(num_channels):
                    y[begin + t + j, c] = narrow(sums[j, c], y[0, 0])


@compiled_with("contract")
def gated_convolution_gradient(
    x: _Array,
    slots: Any,
    num_taps: int,
    reversed_weight: _Floats,
    grad: _Array,
    grad_x: _Array,
    grad_weight: _Floats,
    grad_bias: _Floats,
) -> None:
    """Gradients of `gated_convolution`.

    Args:
        x, slots, num_taps: as given to it.
        reversed_weight: its weight with the first K rows in reverse order.
        grad: (M, C), of its result.
        grad_x: (M, 2 C), filled.
        grad_weight: like its weight; the first K rows are added to, the others overwritten.
        grad_bias: (C,), added to.
    """
    num_channels, width = grad.shape[1], grad_weight.shape[1]
    num_rows = _longest(slots) + 2 * grad_weight.shape[0] + _GROUP
    frames = np.zeros((num_rows, width), np.float32)
    grads = np.zeros((num_rows, width), np.float32)
    sums = np.empty((_GROUP, width), np.float32)
    for n in range(slots.size - 1):
        begin, size = slots[n], slots[n + 1] - slots[n]
        _gate_into(frames, x, begin, size, num_taps - 1)
        for t in range(size):
            for c in range(num_channels):
                value = widen(grad[begin + t, c])
                grads[t, c] = value
                grad_bias[c] += value
        grads[size:] = ZERO
        num_groups = (size + _GROUP - 1) // _GROUP
        for k in range(0, grad_weight.shape[0], _GROUP):
            _add_correlation(grad_weight[k:], grads, frames, k, _GROUP * num_groups)
        for t in range(0, size, _GROUP):
            sums[:] = ZERO
            _add_correlation(sums, reversed_weight, grads, t, reversed_weight.shape[0])
            for j in range(min(_GROUP, size - t)):
                i = begin + t + j
                for c in range(num_channels):
                    g = gate(widen(x[i, num_channels + c]))
                    through = sums[j, c] * g
                    rest = through * widen(x[i, c]) * (ONE - g)
                    grad_x[i, c] = narrow(through, x[0, 0])
                    grad_x[i, num_channels + c] = narrow(rest, x[0, 0])


@compiled_with("contract")
def _longest(slots: Any) -> Any:
    longest = slots[1] - slots[0]
    for n in range(1, slots.size - 1):
        longest = max(longest, slots[n + 1] - slots[n])
    return longest


@compiled_with("contract")
def _gate_into(frames: _Floats, x: _Array, begin: Any, size: Any, before: Any) -> None:
    num_channels = x.shape[1] // 2
    frames[:before] = ZERO
    for t in range(size):
        for c in range(num_channels):
            value = widen(x[begin + t, c]) * gate(widen(x[begin + t, num_channels + c]))
            frames[before + t, c] = value
    frames[before + size :] = ZERO


@compiled_with("contract")
def _add_correlation(
    sums: _Floats, factors: _Floats, frames: _Floats, shift: Any, num_rows: Any
) -> None:
    """sums[i] += sum over k < num_rows of factors[k] * frames[shift + k + i], i < _GROUP."""
    stride = frames.strides[0]
    for c in range(0, frames.shape[1], _LANES):
        _correlate(
            sums.ctypes.data + 4 * c,
            factors.ctypes.data + 4 * c,
            frames.ctypes.data + shift * stride + 4 * c,
            np.int64(stride),
            np.int64(num_rows // _GROUP),
        )


_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)


@written_in_llvm
def _correlate(_: Any, sums: Any, factors: Any, frames: Any, stride: Any, num_groups: Any) -> Any:
    """The sums of `_add_correlation` for _LANES columns: addresses, and bytes from row to row."""

    def generate(_context: Any, b: Any, signature: Any, args: Any) -> Any:
        sums, factors, frames, stride, num_groups = (
            b.sext(a, _I64) if a.type != _I64 else a for a in args
        )
        targets = [_pointer(b, sums, stride, i) for i in range(_GROUP)]
        first = [b.load(target, align=4) for target in targets]
        before, loop, after = b.block, b.append_basic_block("rows"), b.append_basic_block("done")
        b.branch(loop)
        b.position_at_end(loop)
        group, factors_at, frames_at = b.phi(_I64), b.phi(_I64), b.phi(_I64)
        totals = [b.phi(_VECTOR) for _ in first]
        for phi, value in zip(
            (group, factors_at, frames_at, *totals),
            (ir.Constant(_I64, 0), factors, frames, *first),
            strict=True,
        ):
            phi.add_incoming(value, before)
        weights = [b.load(_pointer(b, factors_at, stride, k), align=4) for k in range(_GROUP)]
        x = [b.load(_pointer(b, frames_at, stride, k), align=4) for k in range(2 * _GROUP - 1)]
        new = list(totals)
        for k, weight in enumerate(weights):
            for i in range(_GROUP):
                new[i] = _multiply_add(b, weight, x[k + i], new[i])
        next_group = b.add(group, ir.Constant(_I64, 1))
        step = b.mul(stride, ir.Constant(_I64, _GROUP))
        for phi, value in zip(
            (group, factors_at, frames_at, *totals),
            (next_group, b.add(factors_at, step), b.add(frames_at, step), *new),
            strict=True,
        ):
            phi.add_incoming(value, loop)
        b.cbranch(b.icmp_signed("<", next_group, num_groups), loop, after)
        b.position_at_end(after)
        for target, value in zip(targets, new, strict=True):
            b.store(value, target, align=4)
        return _context.get_dummy_value()

    return types.void(sums, factors, frames, stride, num_groups), generate


def _pointer(b: Any, address: Any, stride: Any, row: int) -> Any:
    at = b.add(address, b.mul(stride, ir.Constant(_I64, row)))
    return b.inttoptr(at, _VECTOR.as_pointer())


def _multiply_add(b: Any, x: Any, y: Any, addend: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fma.v{_LANES}f32"
    function = cgutils.get_or_insert_function(b.module, kind, name)  # type: ignore[no-untyped-call]
    return b.call(function, [x, y, addend])
