"""How much silence must follow the last sample, so that no word is lost and no frame is left over?

The one tail rule: zero samples, before features are computed, at least `min_tail_s` of them and
as many as make a whole number of windows. It is the same for whole utterances, for streams and
for every runtime, so all of them see the same frames and only full chunks.

Invariant: a pure function of numbers.
"""

from typing import Final

from snowmelt.core.errors import ConfigError

__all__ = ["tail_samples"]

_FRAMES_PER_SECOND: Final = 100


def tail_samples(
    num_samples: int,
    decode_chunk_len: int,
    window_overlap: int,
    *,
    min_tail_s: float = 0.4,
    sample_rate: int = 16000,
) -> int:
    """Number of zero samples to append to a signal.

    Args:
        num_samples: samples of the signal, >= 0.
        decode_chunk_len: feature frames (10 ms) that the encoder advances per chunk.
        window_overlap: feature frames that a window has beyond its chunks, >= 0.
        min_tail_s: least silence in seconds; a stored property of the model.
        sample_rate: of the samples, a multiple of 100.

    Returns:
        The number that makes the total 10 ms x T_feat, T_feat = window_overlap + k *
        decode_chunk_len with the smallest possible k >= 1.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> (16000 + tail_samples(16000, 32, 7)) // 160  # 7 + 5 * 32 frames
        167
    """
    if decode_chunk_len < 1 or num_samples < 0 or window_overlap < 0 or min_tail_s < 0:
        raise ConfigError(
            f"decode_chunk_len ({decode_chunk_len}) must be positive, num_samples "
            f"({num_samples}), window_overlap ({window_overlap}) and min_tail_s ({min_tail_s}) "
            "not negative"
        )
    shift, remainder = divmod(sample_rate, _FRAMES_PER_SECOND)
    if remainder or shift < 1:
        raise ConfigError(
            f"sample rate {sample_rate} has no whole number of samples in 10 ms",
            hint="resample to 16000 Hz",
        )
    needed = num_samples + round(min_tail_s * sample_rate)
    chunk = shift * decode_chunk_len
    overlap = shift * window_overlap
    num_chunks = max(1, -(-(needed - overlap) // chunk))
    return overlap + num_chunks * chunk - num_samples
