"""Chunk by chunk and whole: the same numbers, for every chunk length and every batch of streams."""

import random
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import ConfigError, DataError
from snowmelt.models.state import stack_states, unstack_states
from snowmelt.models.zipformer.caches import ZipformerState
from snowmelt.models.zipformer.encoder import Zipformer
from tests.contract.tiny_zipformer import tiny_zipformer


@dataclass
class _Stream:
    """One utterance on its way through the encoder."""

    features: Tensor  # (T, F)
    state: ZipformerState
    position: int = 0
    outputs: list[Tensor] = field(default_factory=list)

    def has_ended(self) -> bool:
        return self.position + 9 > len(self.features)


@torch.no_grad()
def _step(encoder: Zipformer, streams: list[_Stream], num_chunks: list[int]) -> None:
    """Give each stream its next `num_chunks` chunks (0: an empty window) in one batch."""
    chunk_len = 2 * encoder.decode_chunk_size
    windows = []
    for stream, k in zip(streams, num_chunks, strict=True):
        length = 7 + k * chunk_len if k > 0 else 0
        windows.append(stream.features[stream.position : stream.position + length])
        stream.position += k * chunk_len
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


def _utterances(encoder: Zipformer, lengths: list[int], dtype: torch.dtype) -> list[_Stream]:
    return [
        _Stream(torch.randn(length, encoder.num_features, dtype=dtype), encoder.init_state(1))
        for length in lengths
    ]


@torch.no_grad()
def _check_against_whole(encoder: Zipformer, streams: list[_Stream], tolerance: float) -> None:
    x_lens = torch.tensor([len(stream.features) for stream in streams])
    x = torch.nn.utils.rnn.pad_sequence([stream.features for stream in streams], batch_first=True)
    whole, whole_lens = encoder(x, x_lens)
    for stream, frames, length in zip(streams, whole, whole_lens.tolist(), strict=True):
        streamed = torch.cat(stream.outputs)
        assert streamed.shape[0] == length
        torch.testing.assert_close(streamed, frames[:length], rtol=0.0, atol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("chunk_len", [16, 32, 64])
def test_streams_that_join_pause_and_leave_equal_whole(
    chunk_len: int, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = tiny_zipformer(dtype, decode_chunk_size=chunk_len // 2)
    # Lengths about the edges of windows, and some that end anywhere.
    lengths = [9, 10, 7 + chunk_len, 8 + chunk_len, 9 + chunk_len, 7 + 2 * chunk_len, 161, 250]
    streams = _utterances(encoder, lengths, dtype)
    random.seed(chunk_len)
    while any(not stream.has_ended() for stream in streams):
        active = [s for s in streams if not s.has_ended() and random.random() < 0.6]
        num_chunks = [random.choice([0, 1, 1, 1]) for _ in active]
        if any(num_chunks):
            _step(encoder, active, num_chunks)
    _check_against_whole(encoder, streams, tolerance)


def test_several_chunks_in_one_window_equal_whole() -> None:
    encoder = tiny_zipformer()
    streams = _utterances(encoder, [200, 77], torch.float64)
    _step(encoder, streams, [3, 1])
    _step(encoder, streams, [2, 4])
    _step(encoder, streams[:1], [9])
    _check_against_whole(encoder, streams, 1e-10)


@pytest.mark.parametrize("factors", [(2, 4, 2), (4, 2), (1,)], ids=str)
def test_other_downsampling_factors(factors: tuple[int, ...]) -> None:
    encoder = tiny_zipformer(factors=factors, decode_chunk_size=4)
    streams = _utterances(encoder, [100, 33, 50], torch.float64)
    while any(not stream.has_ended() for stream in streams):
        active = [stream for stream in streams if not stream.has_ended()]
        _step(encoder, active, [1] * len(active))
    _check_against_whole(encoder, streams, 1e-10)


def test_without_left_context() -> None:
    encoder = tiny_zipformer(num_left_chunks=0)
    streams = _utterances(encoder, [64], torch.float64)
    while not streams[0].has_ended():
        _step(encoder, streams, [1])
    _check_against_whole(encoder, streams, 1e-10)


def test_flat_states_give_the_same_stream() -> None:
    encoder = tiny_zipformer()
    x = torch.randn(1, 7 + 5 * 16, 12, dtype=torch.float64)
    state, flat = encoder.init_state(1), encoder.get_init_state()
    with torch.no_grad():
        for begin in range(0, 5 * 16, 16):
            window, x_lens = x[:, begin : begin + 23], torch.tensor([23])
            out, out_lens, state = encoder.stream(window, x_lens, state)
            flat_out, flat_lens, flat = encoder.streaming_forward(window, x_lens, flat)
            assert torch.equal(out, flat_out)
            assert torch.equal(out_lens, flat_lens)
    assert [tuple(x.shape) for x in flat[:5]] == [(1, 1)] * 4 + [(2, 1)]
    assert [int(x[0, 0]) for x in flat[:5]] == [40, 20, 10, 5, 20]


def test_an_empty_window_leaves_its_stream_as_it_was() -> None:
    encoder = tiny_zipformer()
    streams = _utterances(encoder, [100, 100], torch.float64)
    _step(encoder, streams, [2, 1])
    before = streams[1].state
    _step(encoder, streams, [1, 0])
    assert streams[1].outputs[-1].shape == (0, 20)
    for old, new in zip(_tensors(before), _tensors(streams[1].state), strict=True):
        assert torch.equal(old, new)
    out, out_lens, state = encoder.stream(torch.zeros(1, 5, 12), torch.tensor([5]), before)
    assert out.shape == (1, 0, 20)
    assert out_lens.tolist() == [0]
    assert state is before


def test_compat_sees_unfilled_left_context_and_exact_does_not() -> None:
    encoder = tiny_zipformer()
    x, x_lens = torch.randn(1, 7 + 3 * 16, 12, dtype=torch.float64), torch.tensor([23])
    outs = []
    for compat in (False, True):
        encoder.icefall_compat = compat
        state = encoder.init_state(1)
        with torch.no_grad():
            outs.append(encoder.stream(x[:, :23], x_lens, state)[0])
    assert (outs[0] - outs[1]).abs().max() > 1e-3


def test_a_stream_that_ended_cannot_go_on() -> None:
    encoder = tiny_zipformer()
    streams = _utterances(encoder, [20], torch.float64)
    _step(encoder, streams, [1])
    with pytest.raises(DataError, match="stream 0 of the batch ended with a short window"):
        encoder.stream(torch.zeros(1, 23, 12), torch.tensor([23]), streams[0].state)


def test_a_state_belongs_to_its_chunk_length() -> None:
    encoder = tiny_zipformer(decode_chunk_size=8)
    state = encoder.init_state(1)
    encoder.decode_chunk_size = 16
    with pytest.raises(ConfigError, match="keep 16 frames of left context, the encoder is set to"):
        encoder.stream(torch.zeros(1, 39, 12), torch.tensor([39]), state)


def _tensors(state: ZipformerState) -> list[Tensor]:
    return [state.num_frames, *(part for stack in state.stacks for part in stack)]
