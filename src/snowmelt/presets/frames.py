"""How long is a frame, and how many of them are left after the encoder's subsampling?

    samples -> feature frames of 10 ms -> (Zipformer) encoder frames of 40 ms

Invariant: pure functions of numbers; whoever turns frames into seconds, or feature frames into
encoder frames, asks here.
"""

from typing import Final

__all__ = [
    "ENCODER_CENTRE_S",
    "ENCODER_FRAME_S",
    "FEATURE_FRAME_S",
    "SUBSAMPLING_FACTOR",
    "WINDOW_OVERLAP",
    "num_encoder_frames",
]

FEATURE_FRAME_S: Final = 0.01

# Feature frames that a window of the Zipformer reads beyond the chunk it advances by: its
# convolution front end needs them.
WINDOW_OVERLAP: Final = 7

# Feature frames for one encoder frame.
SUBSAMPLING_FACTOR: Final = 4

ENCODER_FRAME_S: Final = SUBSAMPLING_FACTOR * FEATURE_FRAME_S

# Encoder frame u sees feature frames 4u ... 4u + 10 (a feature frame is centred 5 ms after it
# begins): the middle of what it sees lies this far behind the start of encoder frame u.
ENCODER_CENTRE_S: Final = 0.055


def num_encoder_frames(num_feature_frames: int) -> int:
    """Encoder frames that the Zipformer makes of an utterance; 0 if it is too short for one.

    Args:
        num_feature_frames: T, feature frames of 10 ms.

    Returns:
        T'' = ((T - 7) // 2 + 1) // 2, frames of 40 ms: the front end halves the rate, and the
        output of the last stack is halved again, rounded up.

    Example:
        >>> [num_encoder_frames(n) for n in (0, 8, 9, 39, 1000)]
        [0, 0, 1, 8, 248]

    Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
    """
    return max(0, (num_feature_frames - WINDOW_OVERLAP) // 2 + 1) // 2
