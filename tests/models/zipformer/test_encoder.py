"""The whole encoder in training: what is drawn, what is repeatable, what the gradient reaches."""

import copy
import random
from unittest import mock

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import DataError
from snowmelt.models.regularisers import set_batch_count
from snowmelt.models.zipformer import encoder as encoder_module
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer


def _encoder() -> Zipformer:
    torch.manual_seed(0)
    return Zipformer(
        num_features=12,
        encoder_dims=(16, 16, 16, 16, 24),
        attention_dim=(8,) * 5,
        encoder_unmasked_dims=(12,) * 5,
        zipformer_downsampling_factors=(1, 2, 4, 8, 2),
        nhead=(2,) * 5,
        feedforward_dim=(24,) * 5,
        num_encoder_layers=(1, 1, 1, 1, 2),
        cnn_module_kernels=(5,) * 5,
        decode_chunk_size=8,
    )


def _batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 100, 12), torch.tensor([100, 57, 9])


def _step(encoder: Zipformer, seed: int) -> tuple[Tensor, list[Tensor | None]]:
    random.seed(seed)
    torch.manual_seed(seed)
    encoder.zero_grad()
    out, lens = encoder(*_batch())
    assert lens.tolist() == [23, 13, 1]
    out.square().mean().backward()
    return out.detach(), [parameter.grad for parameter in encoder.parameters()]


def test_training_is_repeatable_from_the_global_generators_alone() -> None:
    encoder = _encoder().train()
    set_batch_count(encoder, 1000.0)
    twin = copy.deepcopy(encoder)
    out, grads = _step(encoder, seed=3)
    again, grads_again = _step(twin, seed=3)
    assert torch.equal(out, again)
    for a, b in zip(grads, grads_again, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert not torch.equal(out, _step(encoder, seed=4)[0])


def test_every_parameter_learns_when_nothing_is_skipped() -> None:
    encoder = _encoder().train()
    for module in encoder.modules():
        if isinstance(module, ZipformerEncoderLayer):
            module.bypass_scale.data.fill_(0.9)  # its first value is below the clamp
    with mock.patch.object(random, "random", lambda: 0.999):
        _, grads = _step(encoder, seed=0)
    for (name, parameter), grad in zip(encoder.named_parameters(), grads, strict=True):
        assert grad is not None and grad.any(), name
        assert grad.shape == parameter.shape


def test_training_draws_a_chunk_size_and_evaluation_takes_its_own() -> None:
    encoder = _encoder()
    with mock.patch.object(encoder_module, "random_chunk_size", return_value=8) as draw:
        encoder.eval()(*_batch())
        assert not draw.called
        encoder.train()(*_batch())
        draw.assert_called_once_with(46, 8, 50, 0.75)


def test_chunks_and_full_attention_train_alike_in_both_precisions() -> None:
    encoder = _encoder().train()
    for chunk_size in (8, 46):
        with (
            mock.patch.object(encoder_module, "random_chunk_size", return_value=chunk_size),
            mock.patch.object(random, "random", lambda: 0.999),
        ):
            exact, _ = _step(encoder, seed=0)
            with torch.autocast("cpu", torch.bfloat16):
                half, grads = _step(encoder, seed=0)
        assert half.dtype == torch.float32, "sums are kept in the type of the weights"
        assert all(grad is not None and grad.isfinite().all() for grad in grads)
        for n, length in enumerate([23, 13, 1]):
            torch.testing.assert_close(half[n, :length], exact[n, :length], rtol=0.1, atol=0.1)


def test_skip_connections_are_left_out_by_chance_in_training() -> None:
    encoder = _encoder().train()
    calls: list[int] = []
    encoder.skip_modules[4].register_forward_hook(lambda *_: calls.append(4))
    for draw in (0.0, 0.999):
        with mock.patch.object(random, "random", lambda draw=draw: draw):
            encoder(*_batch())
    assert calls == [4]


def test_more_frames_than_any_utterance_has_are_cut_off() -> None:
    encoder = _encoder().eval()
    x, x_lens = _batch()
    out, _ = encoder(x[1:], x_lens[1:])
    assert out.shape == (2, 13, 24)


def test_an_utterance_too_short_for_a_frame_is_named() -> None:
    with pytest.raises(DataError, match="utterance 2 of the batch has 5 feature frames"):
        _encoder()(_batch()[0], torch.tensor([100, 50, 5]))


def test_int32_lengths_are_accepted() -> None:
    encoder = _encoder().eval()
    x, x_lens = _batch()
    out, lens = encoder(x, x_lens.int())
    assert lens.dtype == torch.int64
    assert torch.equal(out, encoder(x, x_lens)[0])
