"""How long is a frame, and how many of them are left after the encoder's subsampling?

    samples -> feature frames of 10 ms -> encoder frames of 40 ms

Invariant: pure functions of numbers; whoever turns frames into seconds, or feature frames into
encoder frames, asks here.
"""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ENCODER_FRAME_S",
    "FEATURE_FRAME_S",
    "LSTM_FRONT_END",
    "SUBSAMPLING_FACTOR",
    "ZIPFORMER_FRONT_END",
    "FrontEnd",
    "num_encoder_frames",
]

FEATURE_FRAME_S: Final = 0.01

# Feature frames for one encoder frame.
SUBSAMPLING_FACTOR: Final = 4

ENCODER_FRAME_S: Final = SUBSAMPLING_FACTOR * FEATURE_FRAME_S

# Both front ends need this many feature frames before the first four that they turn into a frame.
_CONTEXT: Final = 5


@dataclass(frozen=True)
class FrontEnd:
    """What the convolutions in front of an encoder see.

    Attributes:
        window_overlap: feature frames that a window reads beyond the chunk it advances by.
        encoder_centre_s: the middle of what encoder frame u sees lies this many seconds behind the
            start of encoder frame u.
    """

    window_overlap: int
    encoder_centre_s: float


# Encoder frame u sees feature frames 4u ... 4u + 10, and each is centred 5 ms after it begins.
ZIPFORMER_FRONT_END: Final = FrontEnd(window_overlap=7, encoder_centre_s=0.055)

# Encoder frame u sees feature frames 4u ... 4u + 8.
LSTM_FRONT_END: Final = FrontEnd(window_overlap=5, encoder_centre_s=0.045)


def num_encoder_frames(num_feature_frames: int) -> int:
    """Encoder frames that an encoder makes of an utterance; 0 if it is too short for one.

    Args:
        num_feature_frames: T, feature frames of 10 ms.

    Returns:
        T' = (T - 5) // 4, frames of 40 ms. The Zipformer's ((T - 7) // 2 + 1) // 2 and the LSTM's
        ((T - 3) // 2 - 1) // 2 are this same number.

    Example:
        >>> [num_encoder_frames(n) for n in (0, 8, 9, 39, 1000)]
        [0, 0, 1, 8, 248]

    Source: icefall, egs/librispeech/ASR: pruned_transducer_stateless7_streaming/zipformer.py and
    lstm_transducer_stateless2/lstm.py.
    """
    return max(0, num_feature_frames - _CONTEXT) // SUBSAMPLING_FACTOR
