"""Utterances one behind the other: slots, and the same numbers as on axes of their own."""

import random
from unittest import mock

import pytest
import torch
from torch import Tensor

from snowmelt.models.zipformer import encoder as encoder_module
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.models.zipformer.packing import (
    fill_slots,
    pack,
    pack_features,
    packing_of,
    running_mean,
    unpack,
)

_PACKING = packing_of(torch.tensor([11, 4, 1]), 8)


def _packed(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(_PACKING.offsets[-1], 1, 3, dtype=torch.float64, generator=generator)


def test_slots_begin_at_multiples_and_hold_what_the_embedding_reads() -> None:
    assert _PACKING.offsets == (0, 16, 24, 32)
    assert _PACKING.lens == (11, 4, 1)
    assert _PACKING.at(4) == ((0, 4, 6, 8), (3, 1, 1))
    # One frame more, and its features would not fit: 2 * 13 + 8 of them in 2 * 16.
    assert packing_of(torch.tensor([12]), 8).offsets == (0, 16)
    assert packing_of(torch.tensor([13]), 8).offsets == (0, 24)


def test_packing_and_unpacking_are_inverse() -> None:
    x = _packed()
    apart = unpack(x, _PACKING)
    assert apart.shape == (16, 3, 3)
    assert not apart[8:, 1:].any()
    assert torch.equal(pack(apart, _PACKING), x)


def test_features_are_followed_by_copies_of_their_last_frame() -> None:
    x_lens = torch.tensor([30, 16, 9])
    x = torch.arange(90.0).view(3, 30, 1)
    packed = pack_features(x, x_lens, _PACKING)
    assert packed.shape == (1, 71, 1)
    for n, (begin, end) in enumerate(((0, 32), (32, 48), (48, 71))):
        slot = packed[0, begin:end, 0]
        length = int(x_lens[n])
        assert torch.equal(slot[:length], x[n, :length, 0])
        assert bool((slot[length:] == x[n, length - 1, 0]).all())


def test_the_last_frame_fills_its_slot_and_gets_the_gradients_of_its_copies() -> None:
    x = _packed().requires_grad_()
    filled = fill_slots(x, _PACKING)
    assert torch.equal(filled[11:16], x[10:11].expand(5, 1, 3))
    assert torch.equal(filled[:11], x[:11])
    torch.autograd.gradcheck(lambda x: fill_slots(x, _PACKING), [x])


def test_running_means_begin_anew_in_every_slot() -> None:
    x = _packed()
    means = running_mean(x, _PACKING)
    torch.testing.assert_close(means[15], x[:16].mean(dim=0))
    torch.testing.assert_close(means[16], x[16])
    torch.testing.assert_close(means[31], x[24:].mean(dim=0))


def test_compiled_running_means_are_those_of_torch() -> None:
    exact = _packed().requires_grad_()
    x = exact.detach().float().requires_grad_()
    wanted, means = running_mean(exact, _PACKING), running_mean(x, _PACKING)
    torch.testing.assert_close(means, wanted.float(), rtol=1e-6, atol=1e-6)
    wanted.backward(_packed(seed=1))
    means.backward(_packed(seed=1).float())
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk_size", [8, 16, 46])
def test_training_computes_the_same_packed_and_apart(dtype: torch.dtype, chunk_size: int) -> None:
    dims = (16, 16, 16, 16, 24)
    torch.manual_seed(0)
    encoder = Zipformer(
        num_features=12,
        encoder_dims=dims,
        attention_dim=(8,) * 5,
        encoder_unmasked_dims=dims,  # the masks of features are drawn in another shape
        zipformer_downsampling_factors=(1, 2, 4, 8, 2),
        nhead=(2,) * 5,
        feedforward_dim=(24,) * 5,
        num_encoder_layers=(1, 1, 1, 1, 2),
        cnn_module_kernels=(5,) * 5,
        dropout=0.0,
    ).to(dtype)
    x, x_lens = torch.randn(3, 100, 12, dtype=dtype), torch.tensor([100, 57, 9])
    encoder.train()

    def step(is_packed: bool) -> tuple[Tensor, list[Tensor]]:
        encoder.zero_grad()
        with (
            mock.patch.object(encoder_module, "_packs_utterances", lambda _: is_packed),
            mock.patch.object(encoder_module, "random_chunk_size", return_value=chunk_size),
            mock.patch.object(random, "random", lambda: 0.999),  # no regulariser acts
        ):
            out, lens = encoder(x, x_lens)
        valid = torch.cat([out[n, :length] for n, length in enumerate(lens.tolist())])
        weights = torch.linspace(-1.0, 1.0, valid.numel(), dtype=dtype).sin().view_as(valid)
        (valid * weights).sum().backward()
        grads = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        return valid.detach(), grads

    (packed, grads), (apart, expected) = step(is_packed=True), step(is_packed=False)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(packed, apart, rtol=tolerance, atol=tolerance)
    assert len(grads) == len(expected) > 100
    for grad, wanted in zip(grads, expected, strict=True):
        limit = 50 * tolerance * float(wanted.abs().max()) + tolerance
        assert float((grad - wanted).abs().max()) <= limit
