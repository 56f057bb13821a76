"""DoubleSwish, dropout and softmax: training and evaluation agree, gradients are exact."""

import pytest
import torch

from snowmelt.models.regularisers import (
    DoubleSwish,
    DoubleSwishDropout,
    Dropout,
    double_swish,
    softmax,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_form_of_double_swish_has_the_formula_and_its_derivative(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    x = (4.0 * torch.randn(3, 50, dtype=dtype)).requires_grad_()
    grad = torch.randn(3, 50, dtype=dtype)
    y = DoubleSwish().train()(x)
    torch.testing.assert_close(y, double_swish(x))
    (expected,) = torch.autograd.grad(double_swish(x), x, grad)
    torch.testing.assert_close(torch.autograd.grad(y, x, grad)[0], expected)


def test_double_swish_in_evaluation_is_the_formula() -> None:
    x = torch.randn(20)
    assert torch.equal(DoubleSwish().eval()(x), x * torch.sigmoid(x - 1.0))


def test_double_swish_keeps_bfloat16_and_computes_in_float32() -> None:
    x = torch.linspace(-8.0, 8.0, 300).bfloat16().requires_grad_()
    y = DoubleSwish().train()(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, double_swish(x.detach().float()).bfloat16())
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_drops_forward_and_backward_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(100, 100, dtype=dtype, requires_grad=True)
    y = Dropout(0.25).train()(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert 0.2 < float((y == 0).double().mean()) < 0.3


def test_dropout_is_the_identity_in_evaluation_and_without_probability() -> None:
    x = torch.ones(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_follows_torchs_seed() -> None:
    x = torch.ones(1000)
    dropout = Dropout(0.5).train()
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_double_swish_and_dropout_at_once_are_both(dtype: torch.dtype) -> None:
    x = torch.linspace(-6, 6, 3001, dtype=dtype)
    results = []
    for module in (
        DoubleSwishDropout(0.25),
        torch.nn.Sequential(DoubleSwish(), Dropout(0.25)),
    ):
        torch.manual_seed(0)
        own = x.clone().requires_grad_()
        y = module.train()(own)
        y.backward(torch.linspace(1.0, 2.0, 3001, dtype=dtype))
        assert own.grad is not None
        results.append((y.detach(), own.grad))
    # One rounding to bfloat16 less.
    tolerance = 2**-7 if dtype == torch.bfloat16 else 1e-6
    for at_once, apart in zip(*results, strict=True):
        torch.testing.assert_close(at_once, apart, rtol=tolerance, atol=tolerance)
    assert 0.2 < float((results[0][0] == 0).double().mean()) < 0.3


def test_double_swish_and_dropout_without_dropout_or_training_are_double_swish() -> None:
    x = torch.linspace(-6, 6, 301)
    assert torch.equal(DoubleSwishDropout(0.5).eval()(x), double_swish(x))
    torch.testing.assert_close(DoubleSwishDropout(0.0).train()(x), double_swish(x))


def test_softmax_is_stored_in_the_autocast_dtype_with_a_full_precision_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 9, requires_grad=True)
    grad = torch.randn(4, 9)
    (expected,) = torch.autograd.grad(x.softmax(-1), x, grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = softmax(x, dim=-1)
        assert y.dtype == torch.bfloat16
        (actual,) = torch.autograd.grad(y, x, grad.bfloat16())
    assert actual.dtype == torch.float32
    # y and grad are known to 8 bits.
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=5e-3)
    assert torch.equal(softmax(x, dim=-1), x.softmax(-1))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_all_are_scriptable_in_evaluation() -> None:
    model = torch.nn.Sequential(DoubleSwish(), Dropout(0.1)).eval()
    x = torch.randn(7)
    assert torch.equal(torch.jit.script(model)(x), model(x))
