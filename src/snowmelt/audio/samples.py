"""What are samples? One channel of finite floating point numbers in [-1, 1].

Invariant: everything that takes samples from outside asks here, so that 16-bit range, several
channels and NaN are refused by the same rule and with the same words.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import AudioError

__all__ = ["MAX_PEAK", "Float32Array", "as_samples"]

Float32Array: TypeAlias = npt.NDArray[np.float32]

# Loud mixes and lossy decoders overshoot 1.0 by little, 16-bit range by 32768: that is a mistake.
MAX_PEAK: Final = 100.0


def as_samples(values: npt.ArrayLike) -> Float32Array:
    """The values as contiguous (num_samples,) float32; no copy where they are that already.

    Args:
        values: (num_samples,) floating point in [-1, 1], any number of them.

    Raises:
        AudioError: not one-dimensional, not floating point, not finite, or far outside [-1, 1].
    """
    samples = np.asarray(values)
    if samples.ndim != 1:
        raise AudioError(
            f"samples must be (num_samples,), got {samples.shape}",
            hint="mix channels down: samples.mean(axis=1)",
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"samples must be floating point in [-1, 1], got {samples.dtype}",
            hint="divide 16-bit samples by 32768",
        )
    # Two reductions make no copy, and NaN passes through both.
    if len(samples) and not -MAX_PEAK <= samples.min() <= samples.max() <= MAX_PEAK:
        raise AudioError(
            f"samples run from {samples.min():.4g} to {samples.max():.4g}, not in [-1, 1]",
            hint="divide samples in 16-bit range by 32768; NaN or infinity: look at their source",
        )
    return np.ascontiguousarray(samples, np.float32)
