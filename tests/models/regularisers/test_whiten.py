"""Whiten: the metric, the gradient it adds, and how often."""

import random

import pytest
import torch
from torch import Tensor

from snowmelt.models.regularisers import Whiten, whitening_metric


def slow_metric(x: Tensor, num_groups: int) -> Tensor:
    """The definition, by loops, differentiable."""
    frames = x.reshape(-1, x.size(-1))
    frames = frames - frames.mean(dim=0)
    size = x.size(-1) // num_groups
    total, diagonals = torch.zeros((), dtype=x.dtype), []
    for g in range(num_groups):
        group = frames[:, g * size : (g + 1) * size]
        covariance = group.T @ group
        total = total + covariance.square().sum()
        diagonals.append(covariance.diagonal())
    mean_diagonal = torch.cat(diagonals).mean()
    return total / x.size(-1) / (mean_diagonal**2 + 1e-20)


@pytest.mark.parametrize("num_groups", [1, 4])
def test_metric(num_groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(whitening_metric(x, num_groups), slow_metric(x, num_groups))
    one_direction = torch.randn(50, 1, dtype=torch.float64) * torch.ones(8)
    metric = whitening_metric(one_direction, num_groups)
    torch.testing.assert_close(metric, torch.tensor(8.0 / num_groups, dtype=torch.float64))


@pytest.mark.parametrize("num_groups", [1, 4])
def test_gradient_goes_down_the_metric(num_groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 3, 8, dtype=torch.float64)
    x[..., 0] *= 5.0
    x.requires_grad_()
    grad = torch.randn_like(x)
    whiten = Whiten(num_groups, 1.01, prob=1.0, grad_scale=0.1).train()
    (actual,) = torch.autograd.grad(whiten(x), x, grad)
    (penalty,) = torch.autograd.grad(slow_metric(x, num_groups), x)
    torch.testing.assert_close(actual, grad + penalty * (0.1 * grad.norm() / penalty.norm()))


def test_gradient_is_unchanged_below_the_limit() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 4, requires_grad=True)
    grad = torch.randn(500, 4)
    whiten = Whiten(1, 2.0, prob=1.0, grad_scale=0.1).train()
    torch.testing.assert_close(torch.autograd.grad(whiten(x), x, grad)[0], grad)


def test_probability_follows_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    whiten = Whiten(1, 2.0, prob=(0.025, 0.25), grad_scale=0.1).train()
    assert whiten.prob == 0.25
    torch.manual_seed(0)
    white = torch.randn(500, 4, requires_grad=True)
    whiten(white)
    assert whiten.prob == 0.025
    whiten(torch.randn(50, 1) * torch.ones(4, requires_grad=True))
    assert whiten.prob == 0.25


def test_is_the_identity_unless_training_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    x = torch.randn(5, 4, requires_grad=True)
    whiten = Whiten(1, 1.0, prob=1.0, grad_scale=0.1)
    assert whiten.eval()(x) is x
    assert whiten.train()(x.detach()).grad_fn is None
    with torch.no_grad():
        assert whiten(x) is x
    monkeypatch.setattr(random, "random", lambda: 0.3)
    assert Whiten(1, 1.0, prob=(0.025, 0.25), grad_scale=0.1).train()(x) is x


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    x = 300.0 * torch.randn(1000, 8).half()
    torch.testing.assert_close(whitening_metric(x, 2), whitening_metric(x.float(), 2))
