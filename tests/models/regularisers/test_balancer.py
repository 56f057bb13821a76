"""ActivationBalancer: when it acts, what it does to gradients, what it remembers."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.models.regularisers import ActivationBalancer

DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets what every coin flip gives."""
    return lambda value: monkeypatch.setattr(random, "random", lambda: value)


def changed_gradient(balancer: ActivationBalancer, x: Tensor, grad: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = balancer(x)
    assert torch.equal(y, x)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    return grad_x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "channel_dim"), [((30, 2, 3), -1), ((4, 3, 11), 1)])
def test_gradient_is_the_formula_of_the_specification(
    draw: Callable[[float], None],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    channel_dim: int,
) -> None:
    draw(0.0)
    torch.manual_seed(0)
    per_channel = [1] * len(shape)
    per_channel[channel_dim] = 3
    # A channel too small, one too large and nearly always positive, one within bounds.
    scale = torch.tensor([0.05, 9.0, 0.5], dtype=dtype).view(per_channel)
    shift = torch.tensor([0.0, 25.0, 0.0], dtype=dtype).view(per_channel)
    x = torch.randn(shape, dtype=dtype) * scale + shift
    grad = torch.randn(shape, dtype=dtype)
    balancer = ActivationBalancer(
        3, channel_dim, min_positive=0.1, max_positive=0.9, min_abs=0.2, max_abs=2.0
    ).train()

    other = [d for d in range(3) if d != channel_dim % 3]
    mean_abs = x.abs().mean(dim=other, keepdim=True)
    share = (x > 0).to(dtype).mean(dim=other, keepdim=True)
    scale_gain, sign_gain = 0.02 / 0.5, 0.01 / 0.5  # the first call acts with probability 0.5
    scale_factor = ((0.2 - mean_abs) * scale_gain / 0.2).clamp(0, 0.04)
    scale_factor -= ((mean_abs - 2.0) * scale_gain / 2.0).clamp(0, 0.04)
    sign_factor = ((0.1 - share) * sign_gain / 0.1).clamp(0, 0.04)
    sign_factor -= ((share - 0.9) * sign_gain / (1 - 0.9)).clamp(0, 0.04)
    change = sign_factor + scale_factor * ((x > 0).to(dtype) - 0.5)
    expected = grad - grad.abs() * change
    torch.testing.assert_close(changed_gradient(balancer, x, grad), expected)
    assert not torch.equal(expected, grad)


def test_leaves_channels_within_bounds_alone(draw: Callable[[float], None]) -> None:
    draw(0.0)
    x = torch.tensor([[1.0], [-1.0]])
    grad = torch.ones(2, 1)
    assert torch.equal(changed_gradient(ActivationBalancer(1, -1).train(), x, grad), grad)


def test_does_nothing_when_the_draw_says_no(draw: Callable[[float], None]) -> None:
    draw(0.5)
    x, grad = torch.full((4, 2), 1e-3), torch.ones(4, 2)
    balancer = ActivationBalancer(2, -1).train()
    assert torch.equal(changed_gradient(balancer, x, grad), grad)
    assert balancer.num_calls == 1


def test_acts_only_in_training_with_gradients(draw: Callable[[float], None]) -> None:
    draw(0.0)
    x, grad = torch.full((4, 2), 1e-3), torch.ones(4, 2)
    balancer = ActivationBalancer(2, -1).eval()
    assert torch.equal(changed_gradient(balancer, x, grad), grad)
    balancer.train()
    with torch.no_grad():
        assert balancer(x.requires_grad_()) is x
    assert balancer(x.detach()).grad_fn is None
    assert balancer.num_calls == 0


def test_probability_falls_with_calls_and_shorter_schedules_fall_faster() -> None:
    balancer = ActivationBalancer(2, -1, min_prob=0.1)
    assert balancer.current_prob() == 0.5
    balancer.num_calls = 4000
    assert balancer.current_prob() == 0.25
    balancer.schedule_scale = 0.5
    assert balancer.current_prob() == 0.125
    balancer.num_calls = 40_000
    assert balancer.current_prob() == 0.1


def test_count_survives_the_state_dict() -> None:
    balancer = ActivationBalancer(2, -1).train()
    for _ in range(3):
        balancer(torch.randn(4, 2, requires_grad=True))
    state = balancer.state_dict()
    assert state["count"].dtype == torch.int64 and int(state["count"]) == 3
    other = ActivationBalancer(2, -1)
    other.load_state_dict(state)
    assert other.num_calls == 3
