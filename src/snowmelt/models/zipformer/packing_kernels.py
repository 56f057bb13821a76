"""How does the CPU form running means of utterances that stand one behind the other?

Invariant: no frame sees another slot's; sums are in float32. Arrays are (M, C), float32 or the bits
of bfloat16 as uint16; slots (N + 1,) are where each begins, and M.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled_with
from snowmelt.models.cpu_elements import ONE, ZERO, narrow, widen

__all__ = ["running_mean", "running_mean_gradient"]

_Array = npt.NDArray[Any]


@compiled_with("contract")
def running_mean(x: _Array, slots: _Array, y: _Array) -> None:
    """y[t] = mean of x[0 ... t] of its slot."""
    sums = np.empty(x.shape[1], np.float32)
    for n in range(slots.size - 1):
        sums[:] = ZERO
        for t in range(slots[n], slots[n + 1]):
            share = ONE / np.float32(t - slots[n] + 1)
            for c in range(x.shape[1]):
                sums[c] += widen(x[t, c])
                y[t, c] = narrow(sums[c] * share, x[t, c])


@compiled_with("contract")
def running_mean_gradient(grad: _Array, slots: _Array, grad_x: _Array) -> None:
    """The gradient of x from that of y."""
    sums = np.empty(grad.shape[1], np.float32)
    for n in range(slots.size - 1):
        sums[:] = ZERO
        for back in range(slots[n + 1] - slots[n]):
            t = slots[n + 1] - 1 - back
            share = ONE / np.float32(t - slots[n] + 1)
            for c in range(grad.shape[1]):
                sums[c] += widen(grad[t, c]) * share
                grad_x[t, c] = narrow(sums[c], grad[t, c])
