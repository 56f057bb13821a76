"""How are the lattice recursions computed quickly on a CPU?

As products instead of sums of logarithms, row by row. Along a row (s fixed, t running) the
probabilities of nodes follow from each other by one multiply-add,

    alpha[s, t] = alpha[s, t-1] * blank[s, t-1] + (alpha * symbol)[s-1, t or t-1]

and everything else is arithmetic on whole rows, which lie in memory as they come: nothing is
transposed. A row is cut into segments of some frames, and every segment has a unit of its own, a
power of two, so that probabilities may span thousands of nats.

Why the result can be trusted although numbers far below a segment's unit underflow: every node
additionally receives `_FLOOR` units. So no number computed is ever too small by more than rounding,
whatever underflows, and the floors of a segment can change the total F by no more than _FLOOR *
unit * (sum of the segment's backward probabilities). Both factors are known; only if their product
with all else comes near F in some segment, or anything overflows or is nan, may the result be
wrong, and that utterance is computed again with logarithms. Looking at the final total alone would
not do: a cheap wrong prefix and a cheap wrong suffix can hide the true path in the middle.

Invariant: never starts more threads than torch itself would use, and none that outlive the call.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snowmelt.core.compiled import compiled_with

__all__ = ["numba_forward_backward"]

_Float64 = npt.NDArray[np.float64]
_Array = npt.NDArray[np.float32] | _Float64

# Nodes in a segment: enough that the work on its unit does not count.
_SEGMENT: Final = 128
# Largest arc, as a logarithm: e^5 for each node of a segment does not overflow. (Above e^100 also
# numbers would underflow whose product with the arc counts.)
_MOST_LOG_ARC: Final = 5.0
# float64 reaches down to 1e-308: a product of the floor and an arc 130 nats below average is
# still a normal number, so slow denormals stay rare.
_FLOOR: Final = 1e-250  # 2^-830
# Powers of two by which a segment's forward times its backward probabilities may exceed F. The
# floor is 830 below: 80 are left, and with 1e8 nodes the relative error is below 1e-16.
_MOST_EXCESS: Final = 750
# Smaller occupations become exactly 0: as float32 they would be denormals, slow for all who follow.
_LEAST_OCCUPATION: Final = 1e-37
_LEAST_OCCUPATION_EXPONENT: Final = -123  # it is above 2^-123
# Fewer arcs than this are done before a second thread would have started.
_LEAST_ARCS_PER_THREAD: Final = 50_000

# Arcs below 2^-1022 are lost to underflow. A unit at most so far below what goes through such an
# arc has its floor above what was lost: -190 - 830 > -1022.
_MOST_DROP: Final = -190
# 2^e for every e that may occur: those that underflow are 0.
_FIRST_POWER: Final = -1100
_POWERS: Final = np.ldexp(1.0, np.arange(_FIRST_POWER, 1024))
# Below every exponent that occurs.
_LOWEST: Final = -(2**62)

_LOG_2: Final = float(np.log(2.0))


def numba_forward_backward(
    px: Tensor, py: Tensor, boundary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`lattice_forward_backward` on the CPU; arguments and results are the same."""
    scores = torch.zeros(px.size(0), dtype=px.dtype)
    px_grad = torch.zeros(px.shape, dtype=px.dtype)
    py_grad = torch.zeros(py.shape, dtype=py.dtype)
    px_in, py_in = (x.detach().contiguous().numpy() for x in (px, py))
    px_out, py_out = px_grad.numpy(), py_grad.numpy()
    rectangles = boundary.tolist()

    def do_utterance(n: int) -> float:
        # Overflow and the like are expected: they are found, and answered with logarithms.
        with np.errstate(all="ignore"):
            return _forward_backward(n, px_in, py_in, px_out, py_out, rectangles[n])

    num_threads = min(torch.get_num_threads(), px.size(0), 1 + py.numel() // _LEAST_ARCS_PER_THREAD)
    if num_threads <= 1:
        values = [do_utterance(n) for n in range(px.size(0))]
    else:
        # Threads of our own: the compiled loops release the GIL, and numba's own pool would take
        # every core, dies when two Python threads enter it, and does not survive fork().
        with ThreadPoolExecutor(num_threads) as pool:
            values = list(pool.map(do_utterance, range(px.size(0))))
    scores.copy_(torch.tensor(values, dtype=torch.float64))
    return scores, px_grad, py_grad


def _forward_backward(
    n: int, px: _Array, py: _Array, px_grad: _Array, py_grad: _Array, rectangle: list[int]
) -> float:
    """Score of utterance n; its occupations are written into the gradients."""
    s_begin, t_begin, s_end, t_end = rectangle
    shift = 1 + py.shape[2] - px.shape[2]  # frames that a symbol takes
    symbols = (n, slice(s_begin, s_end), slice(t_begin, t_end + 1 - shift))
    blanks = (n, slice(s_begin, s_end + 1), slice(t_begin, t_end))
    num_symbols, num_blanks = s_end - s_begin, t_end - t_begin - shift * (s_end - s_begin)
    if num_blanks < 0:  # each symbol takes a frame, and there are too few
        return -np.inf

    # Every path has the same number of arcs of each kind: taking something off them is exact.
    symbol, px_offset = _arc_factors(px[symbols])
    blank, py_offset = _arc_factors(py[blanks])
    log_total = _linear_domain(symbol, blank, shift, px_grad, py_grad, n, s_begin, t_begin)
    score = float(log_total + num_symbols * px_offset + num_blanks * py_offset)
    if np.isfinite(score):
        return score
    score, px_grad[symbols], py_grad[blanks] = _log_domain(
        px[symbols].astype(np.float64), py[blanks].astype(np.float64), shift == 0
    )
    return score


def _arc_factors(log_probs: _Array) -> tuple[_Float64, float]:
    """exp(log_probs - offset), and the offset.

    It is the mean, which keeps probabilities together when one kind of arc is much cheaper than the
    other, or more where an arc is far above the mean.
    """
    factors = log_probs.astype(np.float64)
    offset = max(_finite_mean(factors), float(factors.max(initial=-np.inf)) - _MOST_LOG_ARC)
    np.subtract(factors, offset, out=factors)
    return np.exp(factors, out=factors), offset


# Sums may use all lanes of a vector; nothing else of IEEE arithmetic is given up, because nan and
# infinity must survive to be seen.
_compiled = compiled_with("reassoc", "contract")


@_compiled
def _finite_mean(x: _Float64) -> float:
    total, count = 0.0, 0
    for row in x:
        for value in row:
            is_finite = abs(value) < np.inf
            total += value if is_finite else 0.0
            count += 1 if is_finite else 0
    return total / max(count, 1)


@_compiled
def _linear_domain(
    symbol: _Float64,
    blank: _Float64,
    shift: int,
    symbol_grad: _Array,
    blank_grad: _Array,
    n: int,
    first_row: int,
    first_frame: int,
) -> float:
    """Log of the total mass, or nan where the result cannot be trusted.

    `symbol` (S, T+1 or T) and `blank` (S+1, T) are probabilities up to a factor; a symbol takes
    `shift` frames. Occupations are added to the rectangle of symbol_grad[n] and blank_grad[n] that
    begins at the first row and frame; it holds zeros, and means nothing if the result is nan.
    """
    num_rows, num_frames = blank.shape
    num_segments = num_frames // _SEGMENT + 1  # of num_frames + 1 nodes
    alpha = np.empty((num_rows, num_frames + 1))
    unit = np.empty((num_segments, num_rows), np.int64)  # exponents of the segments' units
    top = np.empty((num_segments, num_rows), np.int64)  # exponents of their sums
    entering, scratch = np.empty(_SEGMENT), np.empty(1)

    for k in range(num_segments):
        start, stop = k * _SEGMENT, min((k + 1) * _SEGMENT, num_frames + 1)
        for s in range(num_rows):
            left, left_exponent = 0.0, _LOWEST
            if k > 0:
                left, left_exponent = _carried(
                    alpha[s, start - 1], blank[s, start - 1], unit[k - 1, s], scratch
                )
            elif s == 0:
                left, left_exponent = 0.5, 1
            corner, corner_exponent = 0.0, _LOWEST
            if shift == 1 and k > 0 and s > 0:
                corner, corner_exponent = _carried(
                    alpha[s - 1, start - 1], symbol[s - 1, start - 1], unit[k - 1, s - 1], scratch
                )
            # The unit is about the largest of what enters.
            exponent = max(left_exponent, corner_exponent)
            if s > 0:
                exponent = max(exponent, top[k, s - 1])
            # Slices from here on: with indices that might be negative no loop becomes vectors.
            nodes, num_nodes = alpha[s, start:stop], stop - start
            entering[:num_nodes] = _FLOOR
            if s > 0:
                scale = _power_of_two(unit[k, s - 1] - exponent)
                below, arcs = alpha[s - 1, start:stop], symbol[s - 1, start:stop]
                into = entering[shift:]
                for i in range(num_nodes - shift):
                    into[i] += (below[i] * scale) * arcs[i]
            mass = left * _power_of_two(left_exponent - exponent)
            mass += corner * _power_of_two(corner_exponent - exponent) + entering[0]
            nodes[0] = mass
            total = mass
            staying, later, after = blank[s, start:stop], nodes[1:], entering[1:]
            for i in range(num_nodes - 1):
                mass = mass * staying[i] + after[i]
                later[i] = mass
                total += mass
            if not total < np.inf:
                return np.nan
            unit[k, s] = exponent
            top[k, s] = exponent + _exponent(total, scratch)

    whole = alpha[num_rows - 1, num_frames]
    whole_exponent = _exponent(whole, scratch)
    whole *= _power_of_two(-whole_exponent)
    whole_exponent += unit[num_segments - 1, num_rows - 1]

    # Backward: of the segment above (one row up, same frames) all nodes are needed, of the next
    # segment to the right only the first node of each row.
    by_symbol, by_blank = np.empty(_SEGMENT), np.empty(_SEGMENT)
    above = np.empty(_SEGMENT)
    next_first, next_unit = np.zeros(num_rows + 1), np.zeros(num_rows + 1, np.int64)
    first, first_unit = np.zeros(num_rows + 1), np.zeros(num_rows + 1, np.int64)
    for k in range(num_segments - 1, -1, -1):
        start, stop = k * _SEGMENT, min((k + 1) * _SEGMENT, num_frames + 1)
        above_unit, above_top = 0, _LOWEST
        for s in range(num_rows - 1, -1, -1):
            has_right = stop <= num_frames
            right, right_exponent = 0.0, _LOWEST
            if has_right:
                right, right_exponent = _carried(
                    next_first[s], blank[s, stop - 1], next_unit[s], scratch
                )
            corner, corner_exponent = 0.0, _LOWEST
            if shift == 1 and has_right and s < num_rows - 1:
                corner, corner_exponent = _carried(
                    next_first[s + 1], symbol[s, stop - 1], next_unit[s + 1], scratch
                )
            exponent = max(above_top, right_exponent, corner_exponent)
            if s == num_rows - 1 and not has_right:
                exponent = 0

            num_nodes = stop - start
            by_symbol[:num_nodes] = 0.0
            if s < num_rows - 1:
                scale = _power_of_two(above_unit - exponent)
                target, arcs = above[shift:], symbol[s, start:stop]
                for i in range(num_nodes - shift):
                    by_symbol[i] = (target[i] * scale) * arcs[i]
            if corner > 0.0:
                by_symbol[num_nodes - 1] = corner * _power_of_two(corner_exponent - exponent)
            by_blank[num_nodes - 1] = right * _power_of_two(right_exponent - exponent)
            mass = by_blank[num_nodes - 1] + (by_symbol[num_nodes - 1] + _FLOOR)
            if s == num_rows - 1 and not has_right:
                mass = 1.0
            nodes = above  # the segment above is done with
            nodes[num_nodes - 1] = mass
            total = mass
            staying = blank[s, start:stop]
            for i in range(num_nodes - 2, -1, -1):
                mass = mass * staying[i] + (by_symbol[i] + _FLOOR)
                nodes[i] = mass
                total += mass
            if not total < np.inf:
                return np.nan
            above_unit, above_top = exponent, exponent + _exponent(total, scratch)
            first[s], first_unit[s] = nodes[0], exponent

            excess = max(top[k, s], unit[k, s]) + max(above_top, exponent) - whole_exponent
            if excess > _MOST_EXCESS:
                return np.nan
            if excess < _LEAST_OCCUPATION_EXPONENT:
                continue
            scale = _power_of_two(unit[k, s] + exponent - whole_exponent) / whole
            later = nodes[1:]
            for i in range(num_nodes - 1):
                by_blank[i] = later[i] * staying[i]
            before, frame = alpha[s, start:stop], first_frame + start
            out = blank_grad[n, first_row + s, frame : frame + min(num_nodes, num_frames - start)]
            for i in range(out.size):
                share = (before[i] * scale) * by_blank[i]
                out[i] = share if share > _LEAST_OCCUPATION else 0.0
            if s < num_rows - 1:
                num_arcs = min(num_nodes, num_frames + 1 - shift - start)
                out = symbol_grad[n, first_row + s, frame : frame + num_arcs]
                for i in range(out.size):
                    share = (before[i] * scale) * by_symbol[i]
                    out[i] = share if share > _LEAST_OCCUPATION else 0.0
        first, next_first = next_first, first
        first_unit, next_unit = next_unit, first_unit
    return float(math.log(whole) + whole_exponent * _LOG_2)


@_compiled
def _power_of_two(exponent: int) -> float:
    return float(_POWERS[min(max(exponent, _FIRST_POWER), 1023) - _FIRST_POWER])


@_compiled
def _exponent(x: float, scratch: _Float64) -> int:
    """The least e with x < 2^e, of a positive x that is not below the normal numbers."""
    # frexp is a call; this is two instructions.
    scratch[0] = x
    return int(scratch.view(np.int64)[0] >> 52) - 1022


@_compiled
def _carried(mass: float, arc: float, unit: int, scratch: _Float64) -> tuple[float, int]:
    """mass * arc * 2^unit as (x, exponent), x at most 1.

    The exponent is not far below that of the mass even if the arc is 0, because it may be so by
    underflow only: in a unit of the exponent what was lost is less than the floor.
    """
    exponent = _exponent(mass, scratch)
    arc_exponent = max(_exponent(arc, scratch), _MOST_DROP)
    x = (mass * _power_of_two(-exponent)) * (arc * _power_of_two(-arc_exponent))
    return x, exponent + arc_exponent + unit


@_compiled
def _log_add(a: float, b: float) -> float:
    if a == b:  # also two infinities, whose difference is nan
        return a + _LOG_2
    if a < b:
        a, b = b, a
    return a + float(np.log1p(np.exp(b - a)))


@_compiled
def _log_domain(px: _Float64, py: _Float64, is_regular: bool) -> tuple[float, _Float64, _Float64]:
    """Score and occupations of one lattice of log-probabilities, exact for any finite spread."""
    num_rows, num_frames = py.shape
    last_row = num_rows - 1
    skew = 1 if is_regular else 0
    num_steps = num_frames + skew * last_row
    px_grad, py_grad = np.zeros_like(px), np.zeros_like(py)

    p = np.full((num_steps + 1, num_rows), -np.inf)
    p[0, 0] = 0.0
    for k in range(num_steps):
        for s in range(max(0, last_row - (num_steps - k - 1)), min(last_row, k + 1) + 1):
            t = k - skew * s
            by_blank = p[k, s] + py[s, t] if s <= k else -np.inf
            by_symbol = p[k, s - 1] + px[s - 1, t + skew] if s > 0 else -np.inf
            p[k + 1, s] = _log_add(by_blank, by_symbol)
    score = p[num_steps, last_row]
    if not np.isfinite(score):
        return score, px_grad, py_grad

    # Each node's mass goes back to its two predecessors by their shares of its probability.
    mass, next_mass = np.zeros(num_rows), np.zeros(num_rows)
    next_mass[last_row] = 1.0
    for k in range(num_steps - 1, -1, -1):
        mass[:] = 0.0
        for s in range(max(0, last_row - (num_steps - k - 1)), min(last_row, k + 1) + 1):
            if next_mass[s] == 0.0:
                continue
            t = k - skew * s
            by_blank = p[k, s] + py[s, t] if s <= k else -np.inf
            by_symbol = p[k, s - 1] + px[s - 1, t + skew] if s > 0 else -np.inf
            symbol_share = 0.0
            if by_blank == -np.inf:
                symbol_share = 1.0
            elif by_symbol > -np.inf:
                symbol_share = min(np.exp(by_symbol - p[k + 1, s]), 1.0)
            if symbol_share > 0.0:
                px_grad[s - 1, t + skew] = next_mass[s] * symbol_share
                mass[s - 1] += next_mass[s] * symbol_share
            if symbol_share < 1.0:
                py_grad[s, t] = next_mass[s] * (1.0 - symbol_share)
                mass[s] += next_mass[s] * (1.0 - symbol_share)
        mass, next_mass = next_mass, mass
    return score, px_grad, py_grad
