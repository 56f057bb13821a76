"""Which steps do the CPU's compiled loops have in common? Numbers in and out, exp, random bits.

Functions of single elements, compiled into the loops that call them.

Invariant: computed in float32; bfloat16 travels as its bits in uint16, for NumPy has no such type.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from snowmelt.core.compiled import inlined_with, written_in_llvm

__all__ = ["ONE", "ZERO", "as_array", "exponential", "gate", "narrow", "random_bits", "widen"]


def as_array(x: Tensor) -> npt.NDArray[Any]:
    """View of a tensor without gradient: float32, or bfloat16's bits."""
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


@written_in_llvm
def widen(_: Any, value: Any) -> Any:
    """float32 of a float32, or of the bits of a bfloat16."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if value == types.float32:
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), generate


@written_in_llvm
def narrow(_: Any, value: Any, like: Any) -> Any:
    """A float32 in the form of ``like``: itself, or the nearest bfloat16's bits, ties to even."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if like == types.float32:
            return args[0]
        i32 = ir.IntType(32)
        bits = builder.bitcast(args[0], i32)
        is_odd = builder.and_(builder.lshr(bits, ir.Constant(i32, 16)), ir.Constant(i32, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(i32, 0x7FFF)), is_odd)
        # Rounding would carry a nan over into infinity or zero.
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        rounded = builder.select(is_nan, ir.Constant(i32, 0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, ir.Constant(i32, 16)), ir.IntType(16))

    return like(types.float32, like), generate


@written_in_llvm
def _power_of_two(_: Any, shifted: Any) -> Any:
    """2^n for the float32 n + _MAGIC, whose lowest bits are n."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        bits = builder.shl(builder.bitcast(args[0], i32), ir.Constant(i32, 23))
        return builder.bitcast(builder.add(bits, ir.Constant(i32, 0x3F800000)), ir.FloatType())

    return types.float32(types.float32), generate


ZERO = np.float32(0.0)
ONE = np.float32(1.0)
# Adding 1.5 * 2^23 to a float32 rounds it to a whole number.
_MAGIC = np.float32(12582912.0)
# exp stays a normal float32 within these.
_LEAST, _LARGEST = np.float32(-87.0), np.float32(87.0)
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first with few digits so that its products are exact (Cody and Waite).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, minimax polynomial of the Cephes library.
_P5, _P4 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
_P3, _P2 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
_P1, _P0 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@inlined_with("contract")
def exponential(t: Any) -> Any:
    """exp(t), of the nearest number within -87 and 87; relative error below 1e-6."""
    t = _LEAST if t < _LEAST else t
    t = _LARGEST if t > _LARGEST else t
    shifted = t * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = t - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    return (p * r * r + r + ONE) * _power_of_two(shifted)


@inlined_with("contract")
def gate(x: Any) -> Any:
    """sigmoid(x)"""
    return ONE / (ONE + exponential(-x))


@inlined_with("contract")
def random_bits(i: Any, key_low: Any, key_high: Any) -> Any:
    """32 bits from a place and a key: rounds of multiply and shift, the key's halves between."""
    h = np.uint32(np.uint32(i) * np.uint32(0x9E3779B1))
    h = np.uint32(h ^ key_low)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h + key_high)
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(15)))
