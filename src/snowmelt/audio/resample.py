"""How does a signal change its sample rate? soxr at high quality, whole or piece by piece.

Invariant: pieces give bit for bit what the whole gives, for any split; equal rates change nothing.
"""

import numpy as np

from snowmelt.audio.samples import Float32Array
from snowmelt.core.errors import AudioError

__all__ = ["StreamResampler", "resample"]


def resample(samples: Float32Array, from_rate: int, to_rate: int) -> Float32Array:
    """The whole signal at another rate.

    Args:
        samples: (num_samples,) float32.
        from_rate: of the samples, in Hz.
        to_rate: wanted, in Hz.

    Returns:
        (about num_samples * to_rate / from_rate,) float32.

    Raises:
        AudioError: a rate is not positive.
    """
    return StreamResampler(from_rate, to_rate).process(samples, last=True)


class StreamResampler:
    """Resamples a signal that arrives in pieces.

    The filter delays: a piece may give fewer samples than its share, or none; `last` flushes.

    Args:
        from_rate: of the samples that come, in Hz.
        to_rate: of the samples that go, in Hz.

    Raises:
        AudioError: a rate is not positive.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise AudioError(
                f"cannot resample from {from_rate} Hz to {to_rate} Hz: rates must be positive"
            )
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._is_finished = False
        self._stream = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(
                from_rate, to_rate, num_channels=1, dtype="float32", quality="HQ"
            )

    def process(self, samples: Float32Array, *, last: bool = False) -> Float32Array:
        """The output that these samples complete.

        Args:
            samples: (num_samples,) float32, any number of them.
            last: no more samples will come.

        Returns:
            (any number,) float32.
        """
        if self._is_finished:
            raise RuntimeError("samples after the last piece")
        self._is_finished = last
        samples = np.ascontiguousarray(samples, np.float32)
        if self._stream is None:
            return samples
        resampled: Float32Array = self._stream.resample_chunk(samples, last=last)
        return resampled
