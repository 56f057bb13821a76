"""A result depends on its own utterance alone, not on batch mates and not on what padding holds."""

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_lstm import tiny_lstm

_LENGTHS = [9, 10, 13, 38, 40, 75, 133]


def _batch(filling: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(len(_LENGTHS), max(_LENGTHS) + 11, 12, dtype=torch.float64)
    for row, length in zip(x, _LENGTHS, strict=True):
        row[length:] = filling
    return x, torch.tensor(_LENGTHS)


@torch.no_grad()
def test_batch_equals_one_by_one() -> None:
    encoder = tiny_lstm()
    x, x_lens = _batch(float("nan"))
    out, out_lens = encoder(x, x_lens)
    assert out_lens.tolist() == [((length - 3) // 2 - 1) // 2 for length in _LENGTHS]
    assert out.shape[1] == max(out_lens)
    for n, length in enumerate(_LENGTHS):
        alone, _ = encoder(x[n : n + 1, :length], x_lens[n : n + 1])
        torch.testing.assert_close(out[n, : out_lens[n]], alone[0], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("filling", [1e30, float("inf"), float("nan")])
def test_padding_may_hold_anything(filling: float) -> None:
    """Not even the gradients of the weights see it."""
    encoder = tiny_lstm()
    results = []
    for value in (0.0, filling):
        encoder.zero_grad()
        out, _ = encoder(*_batch(value))
        out.square().sum().backward()
        results.append([out, *(p.grad for p in encoder.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(bool(part.isfinite().all()) for part in results[1])


@torch.no_grad()
def test_order_of_the_batch_does_not_matter() -> None:
    encoder = tiny_lstm()
    x, x_lens = _batch(0.0)
    order = torch.tensor([3, 0, 5, 1, 6, 2, 4])
    out, lens = encoder(x, x_lens)
    shuffled, shuffled_lens = encoder(x[order], x_lens[order])
    assert torch.equal(shuffled_lens, lens[order])
    for n, m in enumerate(order.tolist()):
        torch.testing.assert_close(shuffled[n, : lens[m]], out[m, : lens[m]])


def test_no_gradient_reaches_the_padding() -> None:
    encoder = tiny_lstm()
    x, x_lens = _batch(0.0)
    x.requires_grad_()
    out, lens = encoder(x, x_lens)
    sum(out[n, :length].sum() for n, length in enumerate(lens.tolist())).backward()
    assert x.grad is not None
    for row, length in zip(x.grad, _LENGTHS, strict=True):
        assert not row[length:].any()
        assert row[:length].any()
