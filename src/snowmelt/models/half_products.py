"""Does this processor gain from matrix products in bfloat16?

Processors without instructions for it convert every number first and are several times slower
than in float32. No list of processors says it as reliably as one look at the clock.

Invariant: measured once per process, in some milliseconds.
"""

import functools
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = ["bf16_is_faster"]

# A product that is large enough for its speed to be that of long products.
_SIZE: Final = 256
# The fastest of some, taken in turn: what else runs on the machine makes single ones slow.
_REPETITIONS: Final = 5


@functools.cache
def bf16_is_faster() -> bool:
    """Whether a product of bfloat16 matrices on the CPU takes less time than one of float32."""
    with torch.no_grad():
        full = torch.ones(_SIZE, _SIZE)
        short = full.bfloat16()
        times = [
            (_seconds(lambda: full @ full), _seconds(lambda: short @ short))
            for _ in range(1 + _REPETITIONS)
        ][1:]  # the first call of each kind also chooses its program
    return min(short for _, short in times) < min(full for full, _ in times)


def _seconds(function: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
