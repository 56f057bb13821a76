"""Lengths before and after the encoder's subsampling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.presets.frames import (
    ENCODER_FRAME_S,
    SUBSAMPLING_FACTOR,
    WINDOW_OVERLAP,
    num_encoder_frames,
)


@pytest.mark.parametrize(
    ("num_feature_frames", "expected"),
    [(0, 0), (7, 0), (8, 0), (9, 1), (11, 1), (13, 2), (39, 8), (1000, 248)],
)
def test_known_lengths(num_feature_frames: int, expected: int) -> None:
    assert num_encoder_frames(num_feature_frames) == expected


@given(num_chunks=st.integers(1, 50), decode_chunk_len=st.sampled_from([16, 32, 64]))
def test_windows_give_whole_chunks(num_chunks: int, decode_chunk_len: int) -> None:
    chunk_frames = num_chunks * decode_chunk_len
    assert num_encoder_frames(chunk_frames + WINDOW_OVERLAP) == chunk_frames // SUBSAMPLING_FACTOR


def test_an_encoder_frame_is_40_ms() -> None:
    assert ENCODER_FRAME_S == 0.04
