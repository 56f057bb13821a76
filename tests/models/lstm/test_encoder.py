"""The whole encoder: sizes, training, precision, refusals."""

import random

import pytest
import torch

from snowmelt.core.errors import DataError
from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.regularisers import (
    load_regulariser_state,
    regulariser_state,
    set_batch_count,
    set_schedule_scale,
)
from snowmelt.models.scaled_layers import fold_scales
from tests.contract.tiny_lstm import tiny_lstm

X_LENS = torch.tensor([61, 40])


def _features(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 61, 12, dtype=dtype, generator=torch.Generator().manual_seed(3))


def test_fresh_layers_are_copies_of_one() -> None:
    encoder = Lstm(12, d_model=8, rnn_hidden_size=10, dim_feedforward=9, num_encoder_layers=3)
    first, *others = (layer.state_dict() for layer in encoder.encoder.layers)
    for other in others:
        assert all(torch.equal(first[key], other[key]) for key in first)
    pointers = {p.data_ptr() for p in encoder.parameters()}
    assert len(pointers) == len(list(encoder.parameters()))
    assert encoder.warmup == 1.0


def test_shapes_of_output_and_state() -> None:
    encoder = tiny_lstm(torch.float32)
    with torch.no_grad():
        out, lens = encoder(_features(), X_LENS)
    assert out.shape == (2, 14, 12)
    assert lens.tolist() == [14, 8]
    state = encoder.init_state(4)
    assert (state.h.shape, state.c.shape) == ((4, 3, 12), (4, 3, 20))
    assert not state.h.any() and not state.c.any()
    assert encoder.init_state(1, dtype=torch.float64).c.dtype == torch.float64


@pytest.mark.parametrize("aux_layer_period", [0, 1])
def test_training_reaches_every_parameter_and_is_repeatable(aux_layer_period: int) -> None:
    encoder = tiny_lstm(torch.float32, aux_layer_period=aux_layer_period).train()
    outputs = []
    for _ in range(2):
        torch.manual_seed(1)
        random.seed(1)
        encoder.zero_grad()
        out, _ = encoder(_features(), X_LENS)
        out.square().sum().backward()
        outputs.append([out, *(p.grad for p in encoder.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert all(bool(part.isfinite().all()) for part in outputs[0])
    assert all(bool(part.any()) for part in outputs[0])


def test_evaluation_draws_nothing_and_knows_no_warm_up() -> None:
    encoder = tiny_lstm(torch.float32, aux_layer_period=1)
    states = random.getstate(), torch.get_rng_state()
    outs = []
    for warmup in (0.0, 1.0):
        encoder.warmup = warmup
        outs.append(encoder(_features(), X_LENS)[0])
    assert torch.equal(*outs)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_warm_up_changes_training() -> None:
    encoder = tiny_lstm(torch.float32, dropout=0.0, layer_dropout=0.0).train()
    outs = []
    for warmup in (0.0, 1.0):
        encoder.warmup = warmup
        outs.append(encoder(_features(), X_LENS)[0])
    assert not torch.allclose(*outs)


def test_bfloat16_is_near_and_keeps_the_state_in_the_type_of_the_weights() -> None:
    encoder = tiny_lstm(torch.float32)
    state = encoder.init_state(2)
    outs, grads = [], []
    for is_on in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            out, _ = encoder(_features(), X_LENS)
            streamed, _, new_state = encoder.stream(_features(), X_LENS, state)
        assert (out.dtype, new_state.h.dtype, new_state.c.dtype) == (torch.float32,) * 3
        torch.testing.assert_close(streamed[:, :8], out[:, :8])
        out.square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
        outs.append(out.detach())
    assert (outs[1] - outs[0]).norm() < 0.02 * outs[0].norm()
    assert (grads[1] - grads[0]).norm() < 0.05 * grads[0].norm()


def test_folding_the_scales_keeps_the_function() -> None:
    encoder = tiny_lstm()
    x = _features(torch.float64)
    with torch.no_grad():
        expected, _ = encoder(x, X_LENS)
        fold_scales(encoder)
        out, _ = encoder(x, X_LENS)
    torch.testing.assert_close(out, expected, rtol=0.0, atol=1e-12)
    assert not any(name.endswith("scale") for name in encoder.state_dict())


def test_has_no_schedules_of_its_own() -> None:
    encoder = tiny_lstm()
    set_batch_count(encoder, 5.0)
    set_schedule_scale(encoder, 0.1)
    assert regulariser_state(encoder) == {}
    load_regulariser_state(encoder, {})
    assert not hasattr(encoder, "batch_count")


def test_refuses_what_it_cannot_encode() -> None:
    encoder = tiny_lstm(torch.float32)
    with pytest.raises(DataError, match=r"features must be \(N, T, 12\)"):
        encoder(torch.zeros(1, 20, 13), torch.tensor([20]))
    with pytest.raises(DataError, match="utterance 1 of the batch has 8 feature frames"):
        encoder(torch.zeros(2, 20, 12), torch.tensor([20, 8]))
    with pytest.raises(DataError, match="an utterance of 21 feature frames in a batch of 20"):
        encoder(torch.zeros(1, 20, 12), torch.tensor([21]))
    with pytest.raises(DataError, match=r"features must be \(N, T, 12\)"):
        encoder.stream(torch.zeros(1, 9, 13), torch.tensor([9]), encoder.init_state(1))
