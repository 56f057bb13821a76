"""Which settings and which streams does the Zipformer refuse, and what does it say?

Invariant: nothing is computed here; each function returns None or raises a one-line UserError.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from snowmelt.core.errors import ConfigError, DataError
from snowmelt.models.zipformer.caches import ZipformerState

__all__ = [
    "check_chunk_size",
    "check_left_context",
    "check_streams",
]


def check_chunk_size(chunk_size: int, factors: Sequence[int]) -> None:
    """A chunk, in 20 ms frames, must be whole frames at every rate."""
    step = math.lcm(*factors)
    if chunk_size <= 0 or chunk_size % step != 0:
        raise ConfigError(
            f"a chunk of {2 * chunk_size} feature frames is no multiple of {2 * step}",
            f"{2 * step}, {4 * step} and {8 * step} are usual",
        )


def check_left_context(num_left_chunks: int) -> None:
    """A stream can keep a limited past only."""
    if num_left_chunks < 0:
        raise ConfigError(
            f"streaming needs a limited left context, num_left_chunks is {num_left_chunks}",
            "set num_left_chunks to 0 or more",
        )


def check_streams(state: ZipformerState, x_lens: Tensor, left: int, chunk_size: int) -> None:
    """The streams must have been started for this chunk size, and not have ended.

    Args:
        state: of N streams.
        x_lens: (N,) new frames of 20 ms.
        left: frames that the first stack's caches should have.
        chunk_size: in 20 ms frames.
    """
    if state.stacks[0].key.size(2) != left:
        raise ConfigError(
            f"the streams keep {state.stacks[0].key.size(2)} frames of left context, the encoder "
            f"is set to {left}",
            "start new streams after a change of chunk length or left context",
        )
    goes_on = (x_lens > 0) & (state.num_frames % chunk_size != 0)
    if bool(goes_on.any()):
        n = int(goes_on.nonzero()[0])
        raise DataError(
            f"stream {n} of the batch ended with a short window and cannot go on",
            "pass whole windows until the end of the utterance, then start a new stream",
        )
