"""How are the lattice recursions computed quickly on a CPU?

As products instead of sums of logarithms. Steps are as in `reference`: every arc leads from step
k to step k + 1, so the nodes of one step do not depend on each other and the inner loops over
rows are plain multiply-adds. After each step the row is divided by its sum, and the logarithm of
the sum is kept.

Why the result can be trusted although probabilities span thousands of nats: every node
additionally receives `_FLOOR` of the mass of the step before. So no number computed is ever too
small by more than rounding, whatever underflows, and the mass added at step k can change the
total F by no more than _FLOOR * (rows) * A[k] * B[k+1], A and B being the total forward and
backward mass of a step. The backward pass knows the ratio F / (A[k] * B[k+1]) of every step: it
is the sum over the arcs of that step of alpha * arc * beta. Only if that ratio falls below
`_LEAST_SHARE` somewhere, or anything overflows or is nan, may the result be wrong, and that
utterance is computed again with logarithms. Looking at the final total alone would not do: a
cheap wrong prefix and a cheap wrong suffix can hide the true path in the middle.

Invariant: never starts more threads than torch itself would use, and none that outlive the call.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["numba_forward_backward"]

_Float64 = npt.NDArray[np.float64]
_Function = TypeVar("_Function", bound=Callable[..., object])

# float64 reaches down to 1e-308: a product of the floor and an arc 130 nats below average is
# still a normal number, so slow denormals stay rare.
_FLOOR: Final = 1e-250
# Leaves 30 decimal orders between the mass added by floors and the total: with 1e8 nodes the
# relative error is below 1e-22.
_LEAST_SHARE: Final = 1e-220
# Smaller occupations become exactly 0: as float32 they would be denormals, slow for all who follow.
_LEAST_OCCUPATION: Final = 1e-37
# Fewer arcs than this are done before a second thread would have started.
_LEAST_ARCS_PER_THREAD: Final = 50_000

_LOG_2: Final = float(np.log(2.0))


def numba_forward_backward(
    px: Tensor, py: Tensor, boundary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`lattice_forward_backward` on the CPU; arguments and results are the same."""
    scores = torch.zeros(px.size(0), dtype=px.dtype)
    px_grad = torch.zeros(px.shape, dtype=px.dtype)
    py_grad = torch.zeros(py.shape, dtype=py.dtype)
    is_regular = px.size(2) == py.size(2) + 1
    px_in, py_in = px.detach().numpy(), py.detach().numpy()
    px_out, py_out, scores_out = px_grad.numpy(), py_grad.numpy(), scores.numpy()
    rectangles = boundary.tolist()

    def do_utterance(n: int) -> None:
        s_begin, t_begin, s_end, t_end = rectangles[n]
        symbols = (n, slice(s_begin, s_end), slice(t_begin, t_end + int(is_regular)))
        blanks = (n, slice(s_begin, s_end + 1), slice(t_begin, t_end))
        # Overflow and the like are expected: they are found, and answered with logarithms.
        with np.errstate(all="ignore"):
            scores_out[n], px_out[symbols], py_out[blanks] = _forward_backward(
                px_in[symbols].astype(np.float64), py_in[blanks].astype(np.float64), is_regular
            )

    num_threads = min(torch.get_num_threads(), px.size(0), 1 + py.numel() // _LEAST_ARCS_PER_THREAD)
    if num_threads == 1:
        for n in range(px.size(0)):
            do_utterance(n)
    else:
        # Threads of our own: the compiled loops release the GIL, and numba's own pool would take
        # every core, dies when two Python threads enter it, and does not survive fork().
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(do_utterance, range(px.size(0))))
    return scores, px_grad, py_grad


def _forward_backward(
    px: _Float64, py: _Float64, is_regular: bool
) -> tuple[float, _Float64, _Float64]:
    """Score and occupations of one lattice that begins at (0, 0) and ends in its last corner."""
    num_symbols, num_blanks = px.shape[0], py.shape[1]
    if not is_regular:
        num_blanks -= num_symbols
    if num_blanks < 0:  # each symbol takes a frame, and there are too few
        return -np.inf, np.zeros_like(px), np.zeros_like(py)

    # Every path has the same number of arcs of each kind. Taking the mean off them is exact, and
    # keeps a step's probabilities together when one kind is much cheaper than the other.
    px_mean, py_mean = _finite_mean(px), _finite_mean(py)
    log_total, px_grad, py_grad = _linear_domain(
        np.exp(px - px_mean), np.exp(py - py_mean), is_regular
    )
    score = log_total + num_symbols * px_mean + num_blanks * py_mean
    if np.isfinite(score):
        return score, px_grad, py_grad
    return _log_domain(px, py, is_regular)


def _compiled(function: _Function) -> _Function:
    """Compile with numba, once a machine where the cache folder can be written.

    `reassoc` lets sums use all lanes of a vector; nothing else of IEEE arithmetic is given up,
    because nan and infinity must survive to be seen.
    """

    def compile_function(*, cache: bool) -> _Function:
        decorator = numba.njit(
            cache=cache, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy"
        )
        return cast(_Function, decorator(function))

    try:
        return compile_function(cache=True)
    except RuntimeError:  # no place for the cache: installation and home are both read-only
        return compile_function(cache=False)


@_compiled
def _finite_mean(x: _Float64) -> float:
    total, count = 0.0, 0
    for row in x:
        for value in row:
            if np.isfinite(value):
                total += value
                count += 1
    return total / max(count, 1)


@_compiled
def _linear_domain(
    symbol: _Float64, blank: _Float64, is_regular: bool
) -> tuple[float, _Float64, _Float64]:
    """Log of the total mass and the occupations, or nan where they cannot be trusted.

    `symbol` (S, T+1 or T) and `blank` (S+1, T) are probabilities up to a factor.
    """
    num_rows, num_frames = blank.shape
    last_row = num_rows - 1
    skew = 1 if is_regular else 0
    num_steps = num_frames + skew * last_row
    symbol_grad, blank_grad = np.zeros_like(symbol), np.zeros_like(blank)

    # Tables by step. Column s + 1 of `entering` is the symbol arc that leads INTO row s + 1, and
    # column s + 1 of `alpha` is row s: all that row s needs then lies side by side.
    entering = np.zeros((num_steps, num_rows + 1))
    staying = np.zeros((num_steps, num_rows))
    for s in range(last_row):
        for t in range(symbol.shape[1]):
            entering[t + skew * s, s + 1] = symbol[s, t]
    for s in range(num_rows):
        for t in range(num_frames):
            staying[t + skew * s, s] = blank[s, t]

    alpha = np.zeros((num_steps + 1, num_rows + 1))
    alpha[0, 1] = 1.0
    log_total = 0.0
    for k in range(num_steps):
        # The rows of step k + 1 that the beginning reaches and from which the end is reached.
        first, stop = max(0, last_row - (num_steps - k - 1)), min(last_row, k + 1) + 1
        total = 0.0
        for s in range(first, stop):
            mass = alpha[k, s + 1] * staying[k, s] + alpha[k, s] * entering[k, s] + _FLOOR
            alpha[k + 1, s + 1] = mass
            total += mass
        scale = 1.0 / total
        for s in range(first, stop):
            alpha[k + 1, s + 1] *= scale
        log_total += np.log(total)

    beta, next_beta = np.zeros(num_rows + 2), np.zeros(num_rows + 2)  # column s is row s
    next_beta[last_row] = 1.0
    for k in range(num_steps - 1, -1, -1):
        first, stop = max(0, last_row - (num_steps - k)), min(last_row, k) + 1
        total, share = 0.0, 0.0
        for s in range(first, stop):
            by_blank = staying[k, s] * next_beta[s]
            by_symbol = entering[k, s + 1] * next_beta[s + 1]
            beta[s] = by_blank + by_symbol + _FLOOR
            total += beta[s]
            staying[k, s] = alpha[k, s + 1] * by_blank
            entering[k, s + 1] = alpha[k, s + 1] * by_symbol
            share += staying[k, s] + entering[k, s + 1]
        if not (share >= _LEAST_SHARE and total < np.inf):
            return np.nan, symbol_grad, blank_grad
        scale = 1.0 / total
        for s in range(first, stop):
            beta[s] *= scale
        # Every path crosses every step once: the occupations of a step's arcs add up to 1.
        scale = 1.0 / share
        for s in range(first, stop):
            t = k - skew * s
            if t < num_frames and staying[k, s] * scale > _LEAST_OCCUPATION:
                blank_grad[s, t] = staying[k, s] * scale
            if s < last_row and entering[k, s + 1] * scale > _LEAST_OCCUPATION:
                symbol_grad[s, t] = entering[k, s + 1] * scale
        # What lies beyond this step's rows is left over from earlier use of the buffer.
        beta[stop] = 0.0
        beta[first - 1] = 0.0
        beta, next_beta = next_beta, beta
    return log_total, symbol_grad, blank_grad


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
