"""How does the CPU turn attention scores into weights in one pass over memory?

Scores are by far the largest tensors of the attention, so positions, mask and softmax are applied
to one row after the other, while it is in the first cache. Compiled by numba. Measured with 20
heads of 596 queries and keys: 8 ms, where torch's softmax alone takes 17.

Invariants: float32 arrays; a key outside a query's interval costs nothing and gets weight 0.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from snowmelt.core.compiled import compiled_with, written_in_llvm

__all__ = ["softmax_with_positions", "softmax_with_positions_gradient"]

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]


@written_in_llvm
def _power_of_two(_: Any, shifted: Any) -> Any:
    """2^n for the float32 n + _MAGIC, whose lowest bits are n."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        bits = builder.shl(builder.bitcast(args[0], i32), ir.Constant(i32, 23))
        return builder.bitcast(builder.add(bits, ir.Constant(i32, 0x3F800000)), ir.FloatType())

    return types.float32(types.float32), generate


# Adding 1.5 * 2^23 to a float32 rounds it to a whole number.
_MAGIC: Final = np.float32(12582912.0)
_LEAST: Final = np.float32(-87.0)
_LOG2_E: Final = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, minimax polynomial of the Cephes library.
_P5, _P4 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
_P3, _P2 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
_P1, _P0 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@compiled_with("contract")
def _exp_minus(row: Any, largest: Any) -> None:
    """row = exp(row - largest), arguments at most 0."""
    for j in range(row.size):
        t = row[j] - largest
        t = _LEAST if t < _LEAST else t
        shifted = t * _LOG2_E + _MAGIC
        n = shifted - _MAGIC
        r = t - n * _LN2_HIGH - n * _LN2_LOW
        p = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
        row[j] = (p * r * r + r + _ONE) * _power_of_two(shifted)


@compiled_with("reassoc", "nsz", "nnan", "contract")
def _largest(row: Any) -> Any:
    largest = row[0]
    for j in range(row.size):
        largest = row[j] if row[j] > largest else largest
    return largest


@compiled_with("reassoc", "nsz", "contract")
def _sum(row: Any) -> Any:
    total = _ZERO
    for j in range(row.size):
        total += row[j]
    return total


@compiled_with("reassoc", "nsz", "contract")
def _dot(a: Any, b: Any) -> Any:
    total = _ZERO
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@compiled_with("contract")
def _add_four(row: Any, factors: Any, k0: Any, k1: Any, k2: Any, k3: Any) -> None:
    """Four `_add`s in one pass: the Zipformer's positional queries have size 4."""
    f0, f1, f2, f3 = factors[0], factors[1], factors[2], factors[3]
    for j in range(row.size):
        row[j] += (f0 * k0[j] + f1 * k1[j]) + (f2 * k2[j] + f3 * k3[j])


@compiled_with("contract")
def _add(row: Any, factor: Any, keys: Any) -> None:
    for j in range(row.size):
        row[j] += factor * keys[j]


@compiled_with("contract")
def softmax_with_positions(
    scores: _Floats,
    p: _Floats,
    pos: _Floats,
    first: _Ints,
    last: _Ints,
    limit: np.float32,
    excess: npt.NDArray[np.int8],
) -> None:
    """Turn content scores into weights, in place.

    Args:
        scores: (B, N, H, S, W).
        p: (N, H, B * S, P) positional queries.
        pos: (H, P, S - 1 + W) positional keys by distance.
        first, last: (N, B, S), a query sees the keys first ... last - 1.
        limit: of absolute scores.
        excess: (B, N, H, S, W), gets the sign of scores beyond the limit; or of size 0.
    """
    num_blocks, batch_size, num_heads, block, _ = scores.shape
    pos_dim = p.shape[3]
    for b in range(num_blocks):
        for n in range(batch_size):
            for h in range(num_heads):
                for i in range(block):
                    row = scores[b, n, h, i]
                    begin, end = first[n, b, i], last[n, b, i]
                    row[:begin] = _ZERO
                    row[end:] = _ZERO
                    if begin >= end:
                        continue
                    seen = row[begin:end]
                    # Key j of the window is block - 1 - i + j places into the table of distances.
                    start, stop = block - 1 - i + begin, block - 1 - i + end
                    if pos_dim == 4:
                        _add_four(
                            seen,
                            p[n, h, b * block + i],
                            pos[h, 0, start:stop],
                            pos[h, 1, start:stop],
                            pos[h, 2, start:stop],
                            pos[h, 3, start:stop],
                        )
                    else:
                        for e in range(pos_dim):
                            _add(seen, p[n, h, b * block + i, e], pos[h, e, start:stop])
                    if excess.size > 0:
                        signs = excess[b, n, h, i]
                        for j in range(begin, end):
                            signs[j] = (row[j] > limit) - (row[j] < -limit)
                    _exp_minus(seen, _largest(seen))
                    scale = _ONE / _sum(seen)
                    for j in range(seen.size):
                        seen[j] *= scale


@compiled_with("contract")
def softmax_with_positions_gradient(
    weights: _Floats,
    grad: _Floats,
    grad_scores: _Floats,
    p: _Floats,
    pos: _Floats,
    first: _Ints,
    last: _Ints,
    penalty: np.float32,
    excess: npt.NDArray[np.int8],
    grad_p: _Floats,
    grad_pos: _Floats,
) -> None:
    """The gradient of the scores from that of the weights, and the sums of the others.

    Args:
        weights, grad, grad_scores: (B, N, H, S, W), the last one filled.
        p, pos, first, last, excess: as given to and left by `softmax_with_positions`.
        penalty: added to the gradient times the sign in `excess`.
        grad_p: like p; filled.
        grad_pos: like pos; added to.
    """
    num_blocks, batch_size, num_heads, block, _ = weights.shape
    pos_dim = p.shape[3]
    for b in range(num_blocks):
        for n in range(batch_size):
            for h in range(num_heads):
                for i in range(block):
                    row = grad_scores[b, n, h, i]
                    begin, end = first[n, b, i], last[n, b, i]
                    row[:begin] = _ZERO
                    row[end:] = _ZERO
                    if begin >= end:
                        grad_p[n, h, b * block + i, :] = _ZERO
                        continue
                    seen = row[begin:end]
                    seen_weights = weights[b, n, h, i, begin:end]
                    seen_grad = grad[b, n, h, i, begin:end]
                    mean = _dot(seen_grad, seen_weights)
                    for j in range(seen.size):
                        seen[j] = seen_weights[j] * (seen_grad[j] - mean)
                    if excess.size > 0:
                        signs = excess[b, n, h, i]
                        for j in range(begin, end):
                            row[j] += penalty * np.float32(signs[j])
                    start, stop = block - 1 - i + begin, block - 1 - i + end
                    for e in range(pos_dim):
                        grad_p[n, h, b * block + i, e] = _dot(seen, pos[h, e, start:stop])
                        _add(grad_pos[h, e, start:stop], p[n, h, b * block + i, e], seen)
