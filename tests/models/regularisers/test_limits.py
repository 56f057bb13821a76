"""Clamps now and then, and penalties in the gradient."""

import random

import pytest
import torch

from snowmelt.models.regularisers import clamp_sometimes, penalize_abs_values_gt, random_clamp


def test_clamp_sometimes_follows_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([-2.0, 0.5, 2.0])
    monkeypatch.setattr(random, "random", lambda: 0.25)
    assert clamp_sometimes(x, -1.0, 1.0, prob=0.25) is x
    clamped = clamp_sometimes(x, -1.0, 1.0, prob=0.26)
    assert torch.equal(clamped, torch.tensor([-1.0, 0.5, 1.0]))


def test_penalty_is_added_beyond_the_limit_only() -> None:
    x = torch.tensor([-30.0, -25.0, 0.0, 25.0, 26.0], requires_grad=True)
    y = penalize_abs_values_gt(x, limit=25.0, penalty=0.5)
    assert torch.equal(y, x)
    y.backward(torch.full((5,), 2.0))
    assert x.grad is not None
    assert x.grad.tolist() == [1.5, 2.0, 2.0, 2.0, 2.5]


def test_penalty_leaves_small_values_and_evaluation_alone() -> None:
    x = torch.tensor([1.0, -3.0], requires_grad=True)
    assert penalize_abs_values_gt(x, limit=25.0, penalty=0.5) is x
    with torch.no_grad():
        assert penalize_abs_values_gt(x, limit=1.0, penalty=0.5) is x


def test_random_clamp_clamps_each_element_with_its_probability() -> None:
    torch.manual_seed(0)
    x = torch.full((10_000,), 2.0)
    share = float((random_clamp(x, max=1.0, prob=0.3) == 1.0).double().mean())
    assert abs(share - 0.3) < 0.02


def test_random_clamp_reflects_and_stops_the_gradient() -> None:
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    y = random_clamp(x, max=1.0, prob=1.0, reflect=0.5)
    torch.testing.assert_close(y, torch.tensor([0.5, 0.5]))
    y.backward(torch.ones(2))
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, -0.5]
