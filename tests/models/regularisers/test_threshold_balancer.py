"""ThresholdBalancer: what it does to gradients, and when."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.models.regularisers import ThresholdBalancer

DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets what every coin flip gives."""
    return lambda value: monkeypatch.setattr(random, "random", lambda: value)


def _changed_gradient(balancer: ThresholdBalancer, x: Tensor, grad: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = balancer(x)
    assert torch.equal(y, x)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    return grad_x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "channel_dim"), [((30, 2, 3), -1), ((4, 3, 11), 1)])
def test_gradient_is_the_formula_of_the_specification(
    draw: Callable[[float], None], dtype: torch.dtype, shape: tuple[int, ...], channel_dim: int
) -> None:
    draw(0.2)
    torch.manual_seed(0)
    per_channel = [1] * len(shape)
    per_channel[channel_dim] = 3
    # A channel too small, one too large and nearly always positive, one within bounds.
    scale = torch.tensor([0.05, 9.0, 0.5], dtype=dtype).view(per_channel)
    shift = torch.tensor([0.0, 25.0, 0.0], dtype=dtype).view(per_channel)
    x = torch.randn(shape, dtype=dtype) * scale + shift
    grad = torch.randn(shape, dtype=dtype)
    balancer = ThresholdBalancer(
        channel_dim, min_positive=0.1, max_positive=0.9, min_abs=0.2, max_abs=2.0
    ).train()

    other = [d for d in range(3) if d != channel_dim % 3]
    mean_abs = x.abs().mean(dim=other, keepdim=True)
    share = (x > 0).to(dtype).mean(dim=other, keepdim=True)
    factor = 0.01 / 0.25
    sign = (0.1 - share).relu() * factor / 0.1 - (share - 0.9).relu() * factor / (1.0 - 0.9)
    # At once with full strength, however little the limit is passed.
    size = (mean_abs < 0.2).to(dtype) - (mean_abs > 2.0).to(dtype)
    change = sign + size * ((x > 0).to(dtype) - 0.5) * 2.0 * factor
    expected = grad - grad.abs() * change
    torch.testing.assert_close(_changed_gradient(balancer, x, grad), expected)
    assert not torch.equal(expected, grad)


def test_leaves_channels_within_bounds_alone(draw: Callable[[float], None]) -> None:
    draw(0.0)
    x, grad = torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1)
    assert torch.equal(_changed_gradient(ThresholdBalancer(-1).train(), x, grad), grad)


def test_a_quarter_of_the_calls_acts(draw: Callable[[float], None]) -> None:
    x, grad = torch.tensor([[1e-3], [-1e-3]]), torch.ones(2, 1)
    balancer = ThresholdBalancer(-1).train()
    draw(0.25)
    assert torch.equal(_changed_gradient(balancer, x, grad), grad)
    draw(0.2499)
    assert not torch.equal(_changed_gradient(balancer, x, grad), grad)


def test_draws_only_in_training_with_gradients() -> None:
    x = torch.full((4, 2), 1e-3)
    before = random.getstate()
    assert ThresholdBalancer(-1).eval()(x.requires_grad_()) is x
    balancer = ThresholdBalancer(-1).train()
    with torch.no_grad():
        assert balancer(x) is x
    balancer(x.detach())
    assert random.getstate() == before
    assert not balancer.state_dict()
