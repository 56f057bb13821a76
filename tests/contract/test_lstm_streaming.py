"""Chunk by chunk and whole: the same numbers, for every cut of the sound and every batch."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.lstm.state import LstmState
from snowmelt.models.state import stack_states, unstack_states
from tests.contract.tiny_lstm import tiny_lstm


@dataclass
class _Stream:
    """One utterance on its way through the encoder."""

    features: Tensor  # (T, F)
    state: LstmState
    position: int = 0
    outputs: list[Tensor] = field(default_factory=list)

    def has_ended(self) -> bool:
        return self.position + 9 > len(self.features)


@torch.no_grad()
def _step(encoder: Lstm, streams: list[_Stream], num_frames: list[int]) -> None:
    """Give each stream the window of its next `num_frames` frames (0: an empty one), in a batch."""
    windows = []
    for stream, k in zip(streams, num_frames, strict=True):
        length = 4 * k + 5 if k > 0 else 0
        windows.append(stream.features[stream.position : stream.position + length])
        stream.position += 4 * k
    x_lens = torch.tensor([len(window) for window in windows])
    shape = len(windows), int(x_lens.max()), encoder.num_features
    x = torch.full(shape, float("nan"), dtype=windows[0].dtype)  # poison behind short windows
    for row, window in zip(x, windows, strict=True):
        row[: len(window)] = window
    state = stack_states([stream.state for stream in streams])
    out, out_lens, state = encoder.stream(x, x_lens, state)
    for stream, frames, length, new in zip(
        streams, out, out_lens.tolist(), unstack_states(state), strict=True
    ):
        stream.outputs.append(frames[:length])
        stream.state = new


def _streams(encoder: Lstm, lengths: list[int], dtype: torch.dtype) -> list[_Stream]:
    return [
        _Stream(torch.randn(length, encoder.num_features, dtype=dtype), encoder.init_state(1))
        for length in lengths
    ]


@torch.no_grad()
def _check_against_whole(encoder: Lstm, streams: list[_Stream], tolerance: float) -> None:
    x_lens = torch.tensor([len(stream.features) for stream in streams])
    x = torch.nn.utils.rnn.pad_sequence([stream.features for stream in streams], batch_first=True)
    whole, whole_lens = encoder(x, x_lens)
    for stream, frames, length in zip(streams, whole, whole_lens.tolist(), strict=True):
        streamed = torch.cat(stream.outputs)
        assert streamed.shape[0] == length
        torch.testing.assert_close(streamed, frames[:length], rtol=0.0, atol=tolerance)


@given(
    lengths=st.lists(st.integers(9, 70), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_cut_of_any_batch_equals_whole(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    """Streams pause, take windows of different lengths, and end anywhere."""
    encoder = tiny_lstm(seed=seed)
    streams = _streams(encoder, lengths, torch.float64)
    while any(not stream.has_ended() for stream in streams):
        active = [stream for stream in streams if not stream.has_ended()]
        choice = st.lists(st.integers(0, 5), min_size=len(active), max_size=len(active))
        num_frames = data.draw(choice)
        _step(encoder, active, num_frames if any(num_frames) else [1] * len(active))
    _check_against_whole(encoder, streams, 1e-12)


@pytest.mark.parametrize("arguments", [{"rnn_hidden_size": 12}, {"aux_layer_period": 1}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_other_forms_of_the_encoder(dtype: torch.dtype, arguments: dict[str, int]) -> None:
    """Without projection, and with outputs that training combines."""
    encoder = tiny_lstm(dtype, **arguments)
    streams = _streams(encoder, [83, 40], dtype)
    while not streams[0].has_ended():
        active = [stream for stream in streams if not stream.has_ended()]
        _step(encoder, active, [2] * len(active))
    _check_against_whole(encoder, streams, 1e-5 if dtype == torch.float32 else 1e-12)


def test_a_short_window_leaves_the_state_of_its_last_frame() -> None:
    """What follows in the batch, even NaN, does not reach a stream that has run out of frames."""
    encoder = tiny_lstm()
    together = _streams(encoder, [41, 41], torch.float64)
    _step(encoder, together, [9, 3])
    alone = _Stream(together[1].features, encoder.init_state(1))
    _step(encoder, [alone], [3])
    for part, expected in zip(together[1].state, alone.state, strict=True):
        torch.testing.assert_close(part, expected, rtol=0.0, atol=1e-12)
    # Nothing is lost: the stream may go on, should its sound do so.
    _step(encoder, together[1:], [6])
    _check_against_whole(encoder, together, 1e-12)


@pytest.mark.parametrize("num_frames", [0, 5, 8])
def test_a_window_without_a_frame_leaves_its_stream_as_it_was(num_frames: int) -> None:
    encoder = tiny_lstm()
    streams = _streams(encoder, [60, 60], torch.float64)
    _step(encoder, streams, [3, 2])
    before = streams[1].state
    _step(encoder, streams, [1, 0])
    assert streams[1].outputs[-1].shape == (0, 12)
    assert all(torch.equal(a, b) for a, b in zip(before, streams[1].state, strict=True))
    x = torch.zeros(1, num_frames, 12, dtype=torch.float64)
    out, out_lens, state = encoder.stream(x, torch.tensor([num_frames]), before)
    assert out.shape == (1, 0, 12)
    assert out_lens.tolist() == [0]
    assert state is before
