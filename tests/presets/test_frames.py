"""Lengths before and after the encoder's subsampling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.presets.frames import (
    ENCODER_FRAME_S,
    LSTM_FRONT_END,
    SUBSAMPLING_FACTOR,
    ZIPFORMER_FRONT_END,
    FrontEnd,
    num_encoder_frames,
)


@pytest.mark.parametrize(
    ("num_feature_frames", "expected"),
    [(0, 0), (7, 0), (8, 0), (9, 1), (11, 1), (13, 2), (39, 8), (1000, 248)],
)
def test_known_lengths(num_feature_frames: int, expected: int) -> None:
    assert num_encoder_frames(num_feature_frames) == expected


@given(st.integers(9, 5000))
def test_it_is_the_formula_of_both_recipes(frames: int) -> None:
    assert num_encoder_frames(frames) == ((frames - 7) // 2 + 1) // 2
    assert num_encoder_frames(frames) == ((frames - 3) // 2 - 1) // 2


@given(
    num_chunks=st.integers(1, 50),
    decode_chunk_len=st.sampled_from([16, 32, 64]),
    front_end=st.sampled_from([ZIPFORMER_FRONT_END, LSTM_FRONT_END]),
)
def test_windows_give_whole_chunks(
    num_chunks: int, decode_chunk_len: int, front_end: FrontEnd
) -> None:
    chunk_frames = num_chunks * decode_chunk_len
    window = chunk_frames + front_end.window_overlap
    assert num_encoder_frames(window) == chunk_frames // SUBSAMPLING_FACTOR


def test_an_encoder_frame_is_40_ms() -> None:
    assert ENCODER_FRAME_S == 0.04
