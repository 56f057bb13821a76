"""Does every signal end with enough silence and a whole number of windows?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.audio.fbank import FbankConfig
from snowmelt.audio.tail import tail_samples
from snowmelt.core.errors import ConfigError
from snowmelt.presets.frames import (
    LSTM_FRONT_END,
    ZIPFORMER_FRONT_END,
    FrontEnd,
    num_encoder_frames,
)


@given(
    num_samples=st.integers(0, 10**8),
    decode_chunk_len=st.integers(1, 128),
    window_overlap=st.integers(0, 9),
    min_tail_ms=st.integers(0, 2000),
    sample_rate=st.sampled_from([8000, 16000, 44100]),
)
def test_the_tail_rule(
    num_samples: int, decode_chunk_len: int, window_overlap: int, min_tail_ms: int, sample_rate: int
) -> None:
    tail = tail_samples(
        num_samples,
        decode_chunk_len,
        window_overlap,
        min_tail_s=min_tail_ms / 1000,
        sample_rate=sample_rate,
    )
    shift = sample_rate // 100
    least = round(min_tail_ms / 1000 * sample_rate)
    frames, remainder = divmod(num_samples + tail, shift)
    chunks, left_over = divmod(frames - window_overlap, decode_chunk_len)
    assert tail >= least
    assert remainder == left_over == 0
    assert chunks >= 1
    # One chunk less would be too little.
    assert chunks == 1 or tail - shift * decode_chunk_len < least


@pytest.mark.parametrize("num_samples", [0, 1, 16000, 16001, 123456])
@pytest.mark.parametrize("front_end", [ZIPFORMER_FRONT_END, LSTM_FRONT_END])
def test_features_of_the_whole_are_full_windows(num_samples: int, front_end: FrontEnd) -> None:
    tail = tail_samples(num_samples, 32, front_end.window_overlap)
    frames = FbankConfig().num_frames(num_samples + tail)
    assert (frames - front_end.window_overlap) % 32 == 0
    # Every chunk gives all its encoder frames.
    assert num_encoder_frames(frames) == (frames - front_end.window_overlap) // 4
    assert tail >= 6400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": -1}, "not negative"),
        ({"decode_chunk_len": 0}, "must be positive"),
        ({"window_overlap": -1}, "not negative"),
        ({"min_tail_s": -0.1}, "not negative"),
        ({"sample_rate": 11025}, "no whole number of samples in 10 ms"),
        ({"sample_rate": 0}, "no whole number"),
    ],
)
def test_impossible_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"num_samples": 16000, "decode_chunk_len": 32, "window_overlap": 7, **change}
    with pytest.raises(ConfigError, match=message):
        tail_samples(**arguments)
