"""Does every signal end with enough silence and a whole number of windows?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.audio.fbank import FbankConfig
from snowmelt.audio.tail import tail_samples
from snowmelt.core.errors import ConfigError
from snowmelt.presets.frames import WINDOW_OVERLAP


@given(
    num_samples=st.integers(0, 10**8),
    decode_chunk_len=st.integers(1, 128),
    min_tail_ms=st.integers(0, 2000),
    sample_rate=st.sampled_from([8000, 16000, 44100]),
)
def test_the_tail_rule(
    num_samples: int, decode_chunk_len: int, min_tail_ms: int, sample_rate: int
) -> None:
    tail = tail_samples(
        num_samples, decode_chunk_len, min_tail_s=min_tail_ms / 1000, sample_rate=sample_rate
    )
    shift = sample_rate // 100
    least = round(min_tail_ms / 1000 * sample_rate)
    frames, remainder = divmod(num_samples + tail, shift)
    chunks, left_over = divmod(frames - WINDOW_OVERLAP, decode_chunk_len)
    assert tail >= least
    assert remainder == left_over == 0
    assert chunks >= 1
    # One chunk less would be too little.
    assert chunks == 1 or tail - shift * decode_chunk_len < least


@pytest.mark.parametrize("num_samples", [0, 1, 16000, 16001, 123456])
def test_features_of_the_whole_are_full_windows(num_samples: int) -> None:
    total = num_samples + tail_samples(num_samples, 32)
    assert (FbankConfig().num_frames(total) - WINDOW_OVERLAP) % 32 == 0
    assert tail_samples(num_samples, 32) >= 6400


@pytest.mark.parametrize(
    ("num_samples", "decode_chunk_len", "min_tail_s", "sample_rate", "message"),
    [
        (-1, 32, 0.4, 16000, "not negative"),
        (16000, 0, 0.4, 16000, "must be positive"),
        (16000, 32, -0.1, 16000, "not negative"),
        (16000, 32, 0.4, 11025, "no whole number of samples in 10 ms"),
        (16000, 32, 0.4, 0, "no whole number"),
    ],
)
def test_impossible_arguments_are_refused(
    num_samples: int, decode_chunk_len: int, min_tail_s: float, sample_rate: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tail_samples(num_samples, decode_chunk_len, min_tail_s=min_tail_s, sample_rate=sample_rate)
