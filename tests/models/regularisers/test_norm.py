"""BasicNorm: its formula, and the hand-written gradient of its training form."""

import random

import pytest
import torch

from snowmelt.models.regularisers import BasicNorm


@pytest.mark.parametrize("channel_dim", [-1, 1])
def test_training_equals_evaluation_in_value_and_gradients(channel_dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 6, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 6, 6, dtype=torch.float64)
    norm = BasicNorm(6, channel_dim=channel_dim).double()
    expected = norm.eval()(x)
    torch.testing.assert_close(
        expected,
        x / (x.pow(2).mean(dim=channel_dim, keepdim=True) + 0.25).sqrt(),
        rtol=1e-7,
        atol=1e-7,
    )
    expected_grads = torch.autograd.grad(expected, [x, norm.eps], grad)
    actual = norm.train()(x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual, [x, norm.eps], grad), expected_grads)


def test_eps_is_clamped_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = BasicNorm(2, eps_min=-1.0).train()
    x = torch.tensor([[1.0, 0.0]])
    monkeypatch.setattr(random, "random", lambda: 0.24)
    y = norm(x)
    torch.testing.assert_close(y, x / (0.5 + torch.tensor(-1.0).exp()).sqrt())
    y.sum().backward()
    assert norm.eps.grad == 0.0
    monkeypatch.setattr(random, "random", lambda: 0.25)
    norm(x).sum().backward()
    assert norm.eps.grad != 0.0


def test_may_never_be_clamped_and_then_draws_nothing() -> None:
    norm = BasicNorm(2, eps_min=-1.0, clamp_prob=0.0).train()
    before = random.getstate()
    norm(torch.tensor([[1.0, 0.0]])).sum().backward()
    assert norm.eps.grad != 0.0
    assert random.getstate() == before


def test_without_learning_eps_is_a_buffer() -> None:
    norm = BasicNorm(2, learn_eps=False)
    assert list(norm.parameters()) == []
    assert float(norm.state_dict()["eps"]) == pytest.approx(-1.3862944)


def test_keeps_bfloat16() -> None:
    x = torch.randn(4, 8).bfloat16().requires_grad_()
    y = BasicNorm(8).train()(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.bfloat16
