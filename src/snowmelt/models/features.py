"""What do the encoders ask of their features, and what do they see behind an utterance?

Invariant: what a caller left in the padding reaches no encoder.
"""

import math
from typing import Final

import torch
from torch import Tensor

from snowmelt.core.errors import DataError

__all__ = [
    "MIN_FEATURE_FRAMES",
    "check_features",
    "check_utterances",
    "fill_padding",
    "make_pad_mask",
]

# The front ends need 9 feature frames for their first output.
MIN_FEATURE_FRAMES: Final = 9

# log(1e-10), the value that pads batches of features: whatever a caller left in the padding, an
# encoder sees what training saw.
_PADDING_VALUE: Final = math.log(1.0e-10)


def check_features(x: Tensor, num_features: int) -> None:
    """x must be (N, T, num_features)."""
    if x.dim() != 3 or x.size(2) != num_features:
        raise DataError(
            f"features must be (N, T, {num_features}), got {tuple(x.shape)}",
            "add a batch axis, or compute the features that the model was trained on",
        )


def check_utterances(x: Tensor, x_lens: Tensor) -> None:
    """Every length must give a frame and be within x (N, T, F)."""
    too_short = x_lens < MIN_FEATURE_FRAMES
    if bool(too_short.any()):
        n = int(too_short.nonzero()[0])
        raise DataError(
            f"utterance {n} of the batch has {int(x_lens[n])} feature frames, the encoder needs "
            f"at least {MIN_FEATURE_FRAMES}",
            "drop utterances shorter than 90 ms",
        )
    if int(x_lens.max()) > x.size(1):
        raise DataError(
            f"an utterance of {int(x_lens.max())} feature frames in a batch of {x.size(1)} frames",
            "x_lens counts the frames of each utterance before padding",
        )


def make_pad_mask(lengths: Tensor, max_len: int = 0) -> Tensor:
    """(N, T) bool, True where t >= lengths[n]; T is `max_len`, or if that is 0 the longest."""
    num_frames = max_len if max_len > 0 else int(lengths.max())
    return torch.arange(num_frames, device=lengths.device) >= lengths[:, None]


def fill_padding(x: Tensor, x_lens: Tensor) -> Tensor:
    """(N, T, F) with everything at and after x_lens replaced: it may be anything, NaN included."""
    return x.masked_fill(make_pad_mask(x_lens, x.size(1)).unsqueeze(-1), _PADDING_VALUE)
