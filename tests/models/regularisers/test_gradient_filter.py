"""filter_gradients: the formula, its limits, half precision."""

import pytest
import torch
from torch import Tensor

from snowmelt.models.regularisers import filter_gradients


def _filtered(threshold: float, grad: Tensor, weight_grads: list[Tensor]) -> tuple[Tensor, ...]:
    x = torch.zeros_like(grad, requires_grad=True)
    weights = [torch.zeros_like(g, requires_grad=True) for g in weight_grads]
    same_x, same = filter_gradients(threshold, x, weights)
    assert torch.equal(same_x, x)
    assert all(torch.equal(a, b) for a, b in zip(same, weights, strict=True))
    return torch.autograd.grad([same_x, *same], [x, *weights], [grad, *weight_grads])


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_gradient_is_the_formula_of_the_specification(batch_size: int) -> None:
    torch.manual_seed(0)
    grad = torch.randn(6, batch_size, 3, dtype=torch.float64)
    grad[:, -1] *= 50.0
    weight_grads = [torch.randn(2, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    norms = grad.square().mean(dim=(0, 2)).sqrt()
    limit = 2.0 * norms.sort().values[(batch_size - 1) // 2]
    ratios = 1.0 + norms / limit
    result, *weights = _filtered(2.0, grad, weight_grads)
    torch.testing.assert_close(result, grad / ratios[:, None])
    for got, g in zip(weights, weight_grads, strict=True):
        torch.testing.assert_close(got, g / ratios.mean())


def test_equal_utterances_keep_nearly_everything_and_a_wild_one_is_damped() -> None:
    grad = torch.ones(5, 4, 3)
    (result,) = _filtered(10.0, grad, [])
    torch.testing.assert_close(result, grad * 10.0 / 11.0)
    grad[:, 3] = 1000.0
    (result,) = _filtered(10.0, grad, [])
    torch.testing.assert_close(result[:, 3], torch.full((5, 3), 1000.0 * 10.0 / 1010.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_of_zero_stay_finite(dtype: torch.dtype) -> None:
    weight_grad = torch.ones(2, dtype=dtype)
    for num_wild in (0, 1):
        grad = torch.zeros(5, 4, 3, dtype=dtype)
        grad[:, :num_wild] = 3.0
        result, weights = _filtered(10.0, grad, [weight_grad])
        assert result.dtype == weights.dtype == dtype
        assert result.isfinite().all()
        assert weights.isfinite().all()
