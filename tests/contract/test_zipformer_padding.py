"""A result depends on its own utterance alone, not on batch mates and not on what padding holds."""

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_zipformer import tiny_zipformer

_LENGTHS = [9, 10, 38, 39, 40, 75, 133, 160]


def _batch(filling: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(len(_LENGTHS), max(_LENGTHS) + 11, 12, dtype=torch.float64)
    for row, length in zip(x, _LENGTHS, strict=True):
        row[length:] = filling
    return x, torch.tensor(_LENGTHS)


@torch.no_grad()
@pytest.mark.parametrize("chunk_size", [8, 16, 1000])
def test_batch_equals_one_by_one(chunk_size: int) -> None:
    encoder = tiny_zipformer(decode_chunk_size=chunk_size)
    x, x_lens = _batch(float("nan"))
    out, out_lens = encoder(x, x_lens)
    assert out_lens.tolist() == [((length - 7) // 2 + 1) // 2 for length in _LENGTHS]
    for n, length in enumerate(_LENGTHS):
        alone, _ = encoder(x[n : n + 1, :length], x_lens[n : n + 1])
        torch.testing.assert_close(out[n, : out_lens[n]], alone[0], rtol=0.0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("filling", [1e30, float("inf"), float("nan")])
def test_padding_may_hold_anything(filling: float) -> None:
    encoder = tiny_zipformer()
    clean, lens = encoder(*_batch(0.0))
    poisoned, _ = encoder(*_batch(filling))
    for n, length in enumerate(lens.tolist()):
        assert torch.equal(clean[n, :length], poisoned[n, :length])
    assert poisoned.isfinite().all()


@torch.no_grad()
def test_order_of_the_batch_does_not_matter() -> None:
    encoder = tiny_zipformer()
    x, x_lens = _batch(0.0)
    order = torch.tensor([3, 0, 7, 5, 1, 6, 2, 4])
    out, lens = encoder(x, x_lens)
    shuffled, shuffled_lens = encoder(x[order], x_lens[order])
    assert torch.equal(shuffled_lens, lens[order])
    for n, m in enumerate(order.tolist()):
        torch.testing.assert_close(shuffled[n, : lens[m]], out[m, : lens[m]])


def test_no_gradient_reaches_the_padding() -> None:
    encoder = tiny_zipformer()
    x, x_lens = _batch(0.0)
    x.requires_grad_()
    out, lens = encoder(x, x_lens)
    sum(out[n, :length].sum() for n, length in enumerate(lens.tolist())).backward()
    assert x.grad is not None
    for row, length in zip(x.grad, _LENGTHS, strict=True):
        assert not row[length:].any()
        assert row[:length].any()


@torch.no_grad()
def test_compat_lets_padding_into_shorter_utterances() -> None:
    """The original's behaviour, kept for comparison with it: padding changes the last frames."""
    encoder = tiny_zipformer(icefall_compat=True)
    a, lens = encoder(*_batch(0.0))
    b, _ = encoder(*_batch(5.0))
    torch.testing.assert_close(a[-1, : lens[-1]], b[-1, : lens[-1]])
    assert any(not torch.allclose(a[n, :length], b[n, :length]) for n, length in enumerate(lens))
