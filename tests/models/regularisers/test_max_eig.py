"""MaxEig: finds the strongest direction and pushes variance out of it."""

import random

import pytest
import torch

from snowmelt.models.regularisers import MaxEig


@pytest.fixture(autouse=True)
def always_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


def test_direction_converges_and_the_gradient_lowers_the_variance_along_it() -> None:
    torch.manual_seed(0)
    strongest = torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64)
    x = torch.randn(200, 4, dtype=torch.float64) + 10 * torch.randn(200, 1) * strongest
    x = x.mT.contiguous().requires_grad_()  # channels first
    module = MaxEig(4, channel_dim=0, max_var_per_eig=0.5, scale=0.1).train()
    module.double()
    for _ in range(10):
        y = module(x)
    assert torch.equal(y, x)
    assert abs(float(module.max_eig_direction @ strongest)) > 0.99
    grad = torch.randn(4, 200, dtype=torch.float64)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    added = grad_x - grad
    torch.testing.assert_close(added.norm(), 0.1 * grad.norm())

    def share(z: torch.Tensor) -> torch.Tensor:
        return (strongest @ z).var() / z.var(dim=1).sum()

    assert share(x - 0.1 * added) < share(x)


def test_probability_falls_while_no_direction_is_too_strong() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 8, requires_grad=True)
    module = MaxEig(8, channel_dim=-1, max_var_per_eig=0.5, min_prob=0.01).train()
    assert module(x) is x
    assert module.cur_prob == 0.75 + 0.25 * 0.01


def test_is_the_identity_in_evaluation() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    assert MaxEig(8, channel_dim=-1).eval()(x) is x
