"""What does the processor do in one frame of an LSTM? Products of few rows, and cells, compiled.

A frame multiplies a few rows (the batch) by some megabytes of weights. Libraries for large matrices
reach a quarter of the processor's speed there. Here the weights lie in memory in the order in which
they are used: blocks of `COLUMNS` columns, row after row; sums of a block stay in registers, so a
weight is read once for up to six rows of the batch and meets all its lanes at once. The cells are
one pass over their gates.

numba turns the loops into machine code; what is done to one vector is written in LLVM's language
(`_Vector`), because whether a plain loop becomes vectors depends on the compiler's mood.

Invariants: sums and cells are float32; inputs of products are float32, or bfloat16 where the
processor multiplies pairs of them itself (`HAS_BFLOAT16_PRODUCTS`). All sizes but the batch's are
multiples of `LANES`. No function checks an argument or keeps anything: the door is
`cpu_recurrence`. Everything that is compiled is in this file, as numba's cache looks at the date of
one file only.

Accuracy: sigmoid and tanh within 1e-6 of their size, tanh also near 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import llvmlite.binding as llvm
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from snowmelt.core.compiled import compiled, inlined_with, written_in_llvm

__all__ = [
    "COLUMNS",
    "HAS_BFLOAT16_PRODUCTS",
    "LANES",
    "backward",
    "forward",
    "pack",
    "pack_pairs",
]

_Array = npt.NDArray[Any]


def _features() -> set[str]:
    """What numba takes the processor to be able to do."""
    config: Any = numba.config  # its names are made when it is loaded
    if config.CPU_FEATURES is not None:
        return set(config.CPU_FEATURES.split(","))
    if config.CPU_NAME is not None:
        return set()
    return set(llvm.get_host_cpu_features().flatten().split(","))


_HAS_AVX512: Final = "+avx512f" in _features()
HAS_BFLOAT16_PRODUCTS: Final = _HAS_AVX512 and "+avx512bf16" in _features()

# Always 16, so that results and packed weights are alike everywhere; LLVM makes two or four
# registers of one such vector where they are shorter.
LANES: Final = 16
# Sums of a block are _MAX_ROWS x COLUMNS: 24 of AVX-512's 32 registers, 12 of AVX2's 16.
_VECTORS: Final = 4 if _HAS_AVX512 else 2
_MAX_ROWS: Final = 6 if _HAS_AVX512 else 3
COLUMNS: Final = _VECTORS * LANES
# Rows of weights of a block that are used for all of the batch before the next: they stay in L2.
_DEPTH: Final = 512

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS = ir.VectorType(_F32, LANES)
_INTS = ir.VectorType(_I32, LANES)


class _BFloat16(ir.Type):  # type: ignore[misc]
    """LLVM's type, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"


_PAIRS = ir.VectorType(_BFloat16(), 2 * LANES)


class _Vector:
    """LANES float32 values in the making: arithmetic on them adds instructions to the code."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value

    def __add__(self, other: _Vector | float) -> _Vector:
        return self._with("fadd", self, other)

    def __sub__(self, other: _Vector | float) -> _Vector:
        return self._with("fsub", self, other)

    def __rsub__(self, other: float) -> _Vector:
        return self._with("fsub", other, self)

    def __mul__(self, other: _Vector | float) -> _Vector:
        return self._with("fmul", self, other)

    def __truediv__(self, other: _Vector) -> _Vector:
        return self._with("fdiv", self, other)

    def __rtruediv__(self, other: float) -> _Vector:
        return self._with("fdiv", other, self)

    def clipped(self, limit: float) -> _Vector:
        """Between -limit and limit; nan stays nan."""
        result = self
        for bound, relation in ((-limit, "<"), (limit, ">")):
            wide = result._value(bound)
            outside = self.builder.fcmp_ordered(relation, result.value, wide)
            result = _Vector(self.builder, self.builder.select(outside, wide, result.value))
        return result

    def as_power_of_two(self) -> _Vector:
        """2^n for n + _MAGIC, whose lowest bits are n."""
        b = self.builder
        bits = b.shl(b.bitcast(self.value, _INTS), _ints(23))
        return _Vector(b, b.bitcast(b.add(bits, _ints(0x3F800000)), _FLOATS))

    def _with(self, operation: str, left: _Vector | float, right: _Vector | float) -> _Vector:
        emit = getattr(self.builder, operation)
        value = emit(self._value(left), self._value(right), flags=("contract",))
        return _Vector(self.builder, value)

    def _value(self, operand: _Vector | float) -> Any:
        if isinstance(operand, _Vector):
            return operand.value
        return ir.Constant(_FLOATS, [float(np.float32(operand))] * LANES)


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [value] * LANES)


# --- what is done to one vector ---------------------------------------------------------------

# Adding 1.5 * 2^23 to a float32 rounds it to a whole number.
_MAGIC: Final = 12582912.0
# exp stays a normal float32 within these, and sigmoid and tanh are at their ends beyond.
_LARGEST_EXPONENT: Final = 87.0
_LOG2_E: Final = 1.4426950408889634
# ln 2 in two parts, the first with few digits so that its products are exact (Cody and Waite).
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, minimax polynomial of the Cephes library.
_POLYNOMIAL: Final = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def _exp_parts(x: _Vector) -> tuple[_Vector, _Vector]:
    """s, a power of two, and q with exp(x) = s + s q."""
    x = x.clipped(_LARGEST_EXPONENT)
    shifted = x * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = r * _POLYNOMIAL[0] + _POLYNOMIAL[1]
    for coefficient in _POLYNOMIAL[2:]:
        p = p * r + coefficient
    return shifted.as_power_of_two(), p * r * r + r


def _sigmoid(x: _Vector) -> _Vector:
    s, q = _exp_parts(x * -1.0)
    return 1.0 / (s * q + s + 1.0)


def _tanh(x: _Vector) -> _Vector:
    s, q = _exp_parts(x + x)
    # exp(2x) - 1 without the loss of digits near 0, where s is 1.
    expm1 = s * q + (s - 1.0)
    return expm1 / (expm1 + 2.0)


def _load(b: Any, address: Any, dtype: Any) -> _Vector:
    """A vector of float32, or of bfloat16's bits."""
    if dtype == types.float32:
        return _Vector(b, b.load(_pointer(b, address, _FLOATS), align=4))
    bits = b.load(_pointer(b, address, ir.VectorType(_I16, LANES)), align=2)
    return _Vector(b, b.bitcast(b.shl(b.zext(bits, _INTS), _ints(16)), _FLOATS))


def _store(b: Any, x: _Vector, address: Any, dtype: Any) -> None:
    """As float32, or as the bits of the nearest bfloat16, ties to even."""
    if dtype == types.float32:
        b.store(x.value, _pointer(b, address, _FLOATS), align=4)
        return
    bits = b.bitcast(x.value, _INTS)
    is_odd = b.and_(b.lshr(bits, _ints(16)), _ints(1))
    rounded = b.add(b.add(bits, _ints(0x7FFF)), is_odd)
    # Rounding would carry a nan over into infinity or zero.
    is_nan = b.fcmp_unordered("uno", x.value, x.value)
    rounded = b.lshr(b.select(is_nan, _ints(0x7FC00000), rounded), _ints(16))
    narrow = ir.VectorType(_I16, LANES)
    b.store(b.trunc(rounded, narrow), _pointer(b, address, narrow), align=2)


def _pointer(b: Any, address: Any, kind: Any) -> Any:
    return b.inttoptr(address, ir.PointerType(kind))


def _code(
    generate: Callable[[Any, Sequence[Any]], None], num_likes: int, num_args: int
) -> tuple[Any, Any]:
    """Of a function whose first arguments give types alone and whose others are int64."""

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        generate(builder, args[num_likes:])
        return context.get_dummy_value()

    return emit, [types.int64] * num_args


@written_in_llvm
def _copy(_: Any, source: Any, target: Any, from_address: Any, to_address: Any) -> Any:
    """A vector from an array with the type of `source` to one with that of `target`."""

    def generate(b: Any, args: Sequence[Any]) -> None:
        _store(b, _load(b, args[0], source.dtype), args[1], target.dtype)

    emit, ints = _code(generate, 2, 2)
    return types.void(source, target, *ints), emit


@written_in_llvm
def _cells(
    _: Any, like: Any, sums: Any, gates: Any, c_old: Any, c_new: Any, m: Any, stride: Any
) -> Any:
    """LANES cells of one frame: gates after their activations, c, and m in the type of `like`.

    All but `like` are addresses; `stride` are the bytes from one of the four gates to the next.
    """

    def generate(b: Any, args: Sequence[Any]) -> None:
        sums, gates, c_old, c_new, m, stride = args
        values = []
        for name in "ifgo":
            activation = _tanh if name == "g" else _sigmoid
            value = activation(_load(b, sums, types.float32))
            _store(b, value, gates, types.float32)
            values.append(value)
            sums, gates = b.add(sums, stride), b.add(gates, stride)
        i, f, g, o = values
        c = f * _load(b, c_old, types.float32) + i * g
        _store(b, c, c_new, types.float32)
        _store(b, o * _tanh(c), m, like.dtype)

    emit, ints = _code(generate, 1, 6)
    return types.void(like, *ints), emit


@written_in_llvm
def _cells_gradient(
    _: Any,
    like: Any,
    gates: Any,
    c_old: Any,
    c_new: Any,
    dm: Any,
    dc: Any,
    grad_gates: Any,
    m: Any,
    stride: Any,
    grad_stride: Any,
) -> Any:
    """LANES cells of one frame backwards; dc is changed to that of the frame before.

    All but `like` are addresses; strides are the bytes from one of the four gates to the next.
    """

    def generate(b: Any, args: Sequence[Any]) -> None:
        gates, c_old, c_new, dm_at, dc_at, grad_gates, m_at, stride, grad_stride = args
        values = []
        for _ in "ifgo":
            values.append(_load(b, gates, types.float32))
            gates = b.add(gates, stride)
        i, f, g, o = values
        dm = _load(b, dm_at, types.float32)
        tanh_c = _tanh(_load(b, c_new, types.float32))
        m = o * tanh_c
        dc = _load(b, dc_at, types.float32) + dm * (o - m * tanh_c)
        grads = (
            dc * g * (i - i * i),
            dc * _load(b, c_old, types.float32) * (f - f * f),
            dc * i * (1.0 - g * g),
            dm * m * (1.0 - o),
        )
        for grad in grads:
            _store(b, grad, grad_gates, like.dtype)
            grad_gates = b.add(grad_gates, grad_stride)
        _store(b, m, m_at, like.dtype)
        _store(b, dc * f, dc_at, types.float32)

    emit, ints = _code(generate, 1, 9)
    return types.void(like, *ints), emit


@written_in_llvm
def _block_product(
    _: Any,
    like: Any,
    sums: Any,
    sums_stride: Any,
    x: Any,
    x_stride: Any,
    weights: Any,
    num_rows: Any,
    depth: Any,
) -> Any:
    """sums += x times a block of weights: num_rows (1 ... _MAX_ROWS) rows, COLUMNS columns.

    All but `like`, `num_rows` and `depth` are addresses and bytes from row to row. A step of
    `depth` is one float32 of a row of x, or a pair of bfloat16; 1 at least.
    """
    is_half = like.dtype != types.float32

    def generate(b: Any, args: Sequence[Any]) -> None:
        *operands, num_rows, depth = args
        done = b.append_basic_block("done")
        choice = b.switch(num_rows, done)
        for rows in range(1, _MAX_ROWS + 1):
            block = b.append_basic_block(f"rows{rows}")
            choice.add_case(ir.Constant(_I64, rows), block)
            b.position_at_end(block)
            _emit_block_product(b, operands, depth, rows, is_half)
            b.branch(done)
        b.position_at_end(done)

    emit, ints = _code(generate, 1, 7)
    return types.void(like, *ints), emit


def _emit_block_product(
    b: Any, operands: Sequence[Any], depth: Any, rows: int, is_half: bool
) -> None:
    sums_at, sums_stride, x_at, x_stride, weights_at = operands

    def row_addresses(first: Any, stride: Any) -> list[Any]:
        addresses = [first]
        for _ in range(rows - 1):
            addresses.append(b.add(addresses[-1], stride))
        return addresses

    def vectors_at(address: Any) -> list[Any]:
        steps = [ir.Constant(_I64, 4 * LANES * v) for v in range(_VECTORS)]
        return [_pointer(b, b.add(address, step), _FLOATS) for step in steps]

    x_rows = row_addresses(x_at, x_stride)
    targets = [p for row in row_addresses(sums_at, sums_stride) for p in vectors_at(row)]
    first_sums = [b.load(p, align=4) for p in targets]
    before, loop, after = b.block, b.append_basic_block("depth"), b.append_basic_block("sums")
    b.branch(loop)

    b.position_at_end(loop)
    step, address = b.phi(_I64), b.phi(_I64)
    step.add_incoming(ir.Constant(_I64, 0), before)
    address.add_incoming(weights_at, before)
    sums = [b.phi(_FLOATS) for _ in first_sums]
    for phi, value in zip(sums, first_sums, strict=True):
        phi.add_incoming(value, before)
    weights = [b.load(p, align=4) for p in vectors_at(address)]
    offset = b.shl(step, ir.Constant(_I64, 2))
    new_sums = []
    for n, row in enumerate(x_rows):
        x = _broadcast(b, b.add(row, offset))
        for v, weight in enumerate(weights):
            new_sums.append(_multiply_add(b, x, weight, sums[n * _VECTORS + v], is_half))
    next_step = b.add(step, ir.Constant(_I64, 1))
    step.add_incoming(next_step, loop)
    address.add_incoming(b.add(address, ir.Constant(_I64, 4 * COLUMNS)), loop)
    for phi, value in zip(sums, new_sums, strict=True):
        phi.add_incoming(value, loop)
    b.cbranch(b.icmp_signed("<", next_step, depth), loop, after)

    b.position_at_end(after)
    for pointer, value in zip(targets, new_sums, strict=True):
        b.store(value, pointer, align=4)


def _broadcast(b: Any, address: Any) -> Any:
    """The four bytes there, in every lane."""
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    value = b.load(_pointer(b, address, _F32), align=4)
    first = b.insert_element(undefined, value, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, undefined, _ints(0))


def _multiply_add(b: Any, x: Any, weight: Any, addend: Any, is_half: bool) -> Any:
    if is_half:
        name, operand = "llvm.x86.avx512bf16.dpbf16ps.512", _PAIRS
        args = [addend, b.bitcast(x, _PAIRS), b.bitcast(weight, _PAIRS)]
        kinds = [_FLOATS, operand, operand]
    else:
        name, args, kinds = f"llvm.fma.v{LANES}f32", [x, weight, addend], [_FLOATS] * 3
    kind = ir.FunctionType(_FLOATS, kinds)
    function = cgutils.get_or_insert_function(b.module, kind, name)  # type: ignore[no-untyped-call]
    return b.call(function, args)


# --- loops ------------------------------------------------------------------------------------


@compiled
def pack(weight: _Array, packed: _Array) -> None:
    """Bring the weights of a product y = x weight into the order of their use.

    Args:
        weight: (K, C) float32.
        packed: (ceil(C / COLUMNS), K, COLUMNS) float32. What stands in the last block beside the
            last column of weight is not changed.
    """
    for block in range(packed.shape[0]):
        first = block * COLUMNS
        width = min(COLUMNS, weight.shape[1] - first)
        # Tiles, so that one of the two matrices may lie the other way.
        for begin in range(0, weight.shape[0], LANES):
            for c in range(width):
                for k in range(begin, begin + LANES):
                    packed[block, k, c] = weight[k, first + c]


@compiled
def pack_pairs(weight: _Array, packed: _Array) -> None:
    """The same for products of bfloat16.

    Args:
        weight: (K, C) uint16, the bits of bfloat16.
        packed: (ceil(C / COLUMNS), K / 2, COLUMNS) uint32.
    """
    for block in range(packed.shape[0]):
        first = block * COLUMNS
        width = min(COLUMNS, weight.shape[1] - first)
        for begin in range(0, packed.shape[1], LANES // 2):
            for c in range(width):
                for k in range(begin, begin + LANES // 2):
                    low = np.uint32(weight[2 * k, first + c])
                    high = np.uint32(weight[2 * k + 1, first + c])
                    packed[block, k, c] = low | high << np.uint32(16)


@inlined_with()
def _multiply(like: _Array, sums: _Array, x_at: int, weights: _Array, first: int, end: int) -> None:
    """sums[first:end] += x weights; x (N, K) in the type of `like` without gaps at an address."""
    num_blocks, depth, _ = weights.shape
    sums_stride, x_stride = sums.strides[0], 4 * depth
    num_groups = (end - first + _MAX_ROWS - 1) // _MAX_ROWS
    for block in range(num_blocks):
        for begin in range(0, depth, _DEPTH):
            steps = min(_DEPTH, depth - begin)
            weights_at = weights.ctypes.data + 4 * COLUMNS * (block * depth + begin)
            n = first
            for group in range(num_groups):
                rows = (end - n) // (num_groups - group)
                _block_product(
                    like,
                    sums.ctypes.data + n * sums_stride + 4 * COLUMNS * block,
                    sums_stride,
                    x_at + n * x_stride + 4 * begin,
                    x_stride,
                    weights_at,
                    rows,
                    steps,
                )
                n += rows


@compiled
def forward(
    gates_in: _Array,
    weight_hh: _Array,
    weight_hr: _Array,
    hs: _Array,
    cs: _Array,
    gates: _Array,
    gate_sums: _Array,
    m: _Array,
    h_sums: _Array,
    first: int,
    end: int,
) -> None:
    """Frames of the rows first ... end - 1 of a batch.

    Half precision is that of `gates_in`, `hs` and `m`: float32, or bfloat16's bits as uint16. All
    arrays are without gaps.

    Args:
        gates_in: (T, N, 4H).
        weight_hh: packed (P, 4H).
        weight_hr: packed (H, P); of no blocks: there is none, P = H.
        hs, cs: (T + 1, N, P), (T + 1, N, H) float32; filled from 1 on.
        gates: (T, N, 4H) float32, filled with the gates after their activations.
        gate_sums: (N, at least 4H) float32, is overwritten, as are
        m: (N, H) and
        h_sums: (N, at least P) float32.
    """
    num_frames, num_rows, width = gates_in.shape
    size, proj_size = width // 4, hs.shape[2]
    itemsize = hs.itemsize
    is_projected = weight_hr.shape[0] > 0
    for t in range(num_frames):
        for n in range(first, end):
            source = gates_in.ctypes.data + (t * num_rows + n) * width * itemsize
            target = gate_sums.ctypes.data + n * gate_sums.strides[0]
            for j in range(0, width, LANES):
                _copy(gates_in, gate_sums, source + j * itemsize, target + j * 4)
        h_old = hs.ctypes.data + t * num_rows * proj_size * itemsize
        _multiply(hs, gate_sums, h_old, weight_hh, first, end)
        for n in range(first, end):
            sums = gate_sums.ctypes.data + n * gate_sums.strides[0]
            frame = t * num_rows + n
            gates_at = gates.ctypes.data + frame * width * 4
            c_old = cs.ctypes.data + frame * size * 4
            c_new = c_old + num_rows * size * 4
            if is_projected:
                m_at = m.ctypes.data + n * size * itemsize
            else:
                m_at = hs.ctypes.data + (frame + num_rows) * size * itemsize
            for j in range(0, size, LANES):
                _cells(
                    hs,
                    sums + j * 4,
                    gates_at + j * 4,
                    c_old + j * 4,
                    c_new + j * 4,
                    m_at + j * itemsize,
                    size * 4,
                )
        if is_projected:
            h_sums[first:end] = np.float32(0.0)
            _multiply(hs, h_sums, m.ctypes.data, weight_hr, first, end)
            for n in range(first, end):
                source = h_sums.ctypes.data + n * h_sums.strides[0]
                target = hs.ctypes.data + ((t + 1) * num_rows + n) * proj_size * itemsize
                for j in range(0, proj_size, LANES):
                    _copy(h_sums, hs, source + j * 4, target + j * itemsize)


@compiled
def backward(
    grad_out: _Array,
    weight_hh: _Array,
    weight_hr: _Array,
    gates: _Array,
    cs: _Array,
    grad_gates: _Array,
    grad_hs: _Array,
    ms: _Array,
    h_sums: _Array,
    m_sums: _Array,
    dc: _Array,
    first: int,
    end: int,
) -> None:
    """The same frames backwards.

    Half precision is that of `grad_out`, `grad_gates`, `grad_hs` and `ms`.

    Args:
        grad_out: (T, N, P).
        weight_hh: packed (4H, P).
        weight_hr: packed (P, H); of no blocks: there is none, P = H.
        gates, cs: of `forward`.
        grad_gates: (T, N, 4H), filled, as are
        grad_hs: (T, N, P) and
        ms: (T, N, H), what `weight_hr` multiplied.
        h_sums: (N, at least P) float32, is overwritten, as is
        m_sums: (N, at least H) float32.
        dc: (N, H) float32; zeros.
    """
    num_frames, num_rows, width = gates.shape
    size, proj_size = width // 4, grad_out.shape[2]
    itemsize = grad_out.itemsize
    is_projected = weight_hr.shape[0] > 0
    dm = m_sums if is_projected else h_sums
    for back in range(num_frames):
        t = num_frames - 1 - back
        for n in range(first, end):
            source = grad_out.ctypes.data + (t * num_rows + n) * proj_size * itemsize
            target = h_sums.ctypes.data + n * h_sums.strides[0]
            for j in range(0, proj_size, LANES):
                _copy(grad_out, h_sums, source + j * itemsize, target + j * 4)
        if back > 0:
            after = grad_gates.ctypes.data + (t + 1) * num_rows * width * itemsize
            _multiply(grad_out, h_sums, after, weight_hh, first, end)
        for n in range(first, end):
            source = h_sums.ctypes.data + n * h_sums.strides[0]
            target = grad_hs.ctypes.data + (t * num_rows + n) * proj_size * itemsize
            for j in range(0, proj_size, LANES):
                _copy(h_sums, grad_hs, source + j * 4, target + j * itemsize)
        if is_projected:
            m_sums[first:end] = np.float32(0.0)
            dh = grad_hs.ctypes.data + t * num_rows * proj_size * itemsize
            _multiply(grad_out, m_sums, dh, weight_hr, first, end)
        for n in range(first, end):
            frame = t * num_rows + n
            gates_at = gates.ctypes.data + frame * width * 4
            c_old = cs.ctypes.data + frame * size * 4
            c_new = c_old + num_rows * size * 4
            dm_at = dm.ctypes.data + n * dm.strides[0]
            dc_at = dc.ctypes.data + n * size * 4
            grads = grad_gates.ctypes.data + frame * width * itemsize
            m_at = ms.ctypes.data + frame * size * itemsize
            for j in range(0, size, LANES):
                _cells_gradient(
                    grad_out,
                    gates_at + j * 4,
                    c_old + j * 4,
                    c_new + j * 4,
                    dm_at + j * 4,
                    dc_at + j * 4,
                    grads + j * itemsize,
                    m_at + j * itemsize,
                    size * 4,
                    size * itemsize,
                )
