"""The compiled loops give what the torch formulas give, for every type and memory layout."""

import pytest
import torch
from torch import Tensor

from snowmelt.models import cpu_kernels

DTYPES = [torch.float32, torch.bfloat16]


def random_tensor(*shape: int, dtype: torch.dtype, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def layouts(dtype: torch.dtype) -> list[Tensor]:
    x = random_tensor(3, 5, 4, 7, dtype=dtype)
    return [
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(0, 3),
        x[:, ::2],
        x[0, 0, 0, 0],
        x[:, :0],
    ]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    # bfloat16: half a unit of the last of 8 digits, and sums of two such roundings.
    return {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 8e-3, "atol": 1e-3}


@pytest.mark.parametrize("dtype", DTYPES)
def test_double_swish_equals_its_formula(dtype: torch.dtype) -> None:
    for x in layouts(dtype):
        wide = x.double().requires_grad_()
        expected = wide * torch.sigmoid(wide - 1.0)
        y = cpu_kernels.double_swish(x)
        torch.testing.assert_close(y.double(), expected, **tolerance(dtype))
        grad = random_tensor(*x.shape, dtype=dtype, scale=1.0)
        (expected_grad,) = torch.autograd.grad(expected, wide, grad.double())
        grad_x = cpu_kernels.double_swish_gradient(x, grad)
        torch.testing.assert_close(grad_x.double(), expected_grad, **tolerance(dtype))


def test_double_swish_of_extreme_values() -> None:
    x = torch.tensor([-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30, torch.inf, torch.nan])
    y = cpu_kernels.double_swish(x)
    torch.testing.assert_close(y[2:6], x[2:6] * torch.sigmoid(x[2:6] - 1.0))
    assert y[1].abs() < 1e-30
    torch.testing.assert_close(y[6:8], x[6:8])
    assert y[8].isnan()
    assert cpu_kernels.double_swish(x.bfloat16())[8].isnan()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_the_right_share_and_scales_it(dtype: torch.dtype) -> None:
    x = torch.ones(200, 500, dtype=dtype)
    y = cpu_kernels.apply_dropout(x, 0.1, key=12345678901234567)
    is_kept = y != 0
    torch.testing.assert_close(y[is_kept], (x[is_kept].float() / 0.9).to(dtype))
    # 100,000 draws: the share has a standard deviation of 0.001.
    assert abs(float(is_kept.double().mean()) - 0.9) < 0.005
    # Neighbours, rows and columns are independent: both dropped with probability 0.01.
    dropped = (~is_kept).double()
    assert abs(float((dropped[:, 1:] * dropped[:, :-1]).mean()) - 0.01) < 0.002
    assert abs(float((dropped[1:] * dropped[:-1]).mean()) - 0.01) < 0.002


def test_keys_give_independent_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(2**63 - 1, (6,), generator=generator).tolist()
    # Those that share one half of their bits are independent too.
    keys += [keys[0] ^ 0x5DEECE66, keys[0] ^ (0x5DEECE66 << 32)]
    x = torch.ones(40_000)
    masks = [cpu_kernels.apply_dropout(x, 0.5, key) for key in keys]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            # Half of the places agree; the standard deviation of the share is 0.0025.
            assert abs(float((mask == other).double().mean()) - 0.5) < 0.015
    assert torch.equal(masks[0], cpu_kernels.apply_dropout(x, 0.5, keys[0]))


def test_channel_last_in_memory_drops_the_same_places_backward() -> None:
    x = torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    mask = cpu_kernels.apply_dropout(x, 0.5, key=7)
    assert mask.stride() == x.stride()
    assert torch.equal(mask, cpu_kernels.apply_dropout(x.clone(), 0.5, key=7))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channel_dim", [0, 1, 2, -1])
def test_channel_statistics(dtype: torch.dtype, channel_dim: int) -> None:
    for x in [random_tensor(70, 5, 90, dtype=dtype), random_tensor(9, 7, 5, dtype=dtype).mT]:
        mean_abs, share = cpu_kernels.channel_statistics(x, channel_dim)
        wide = x.double().movedim(channel_dim, 0).flatten(start_dim=1)
        torch.testing.assert_close(mean_abs.double(), wide.abs().mean(dim=1), rtol=1e-6, atol=0.0)
        torch.testing.assert_close(
            share.double(), (wide > 0).double().mean(dim=1), rtol=1e-6, atol=0.0
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channel_dim", [0, 1, 2, -1])
def test_balancer_gradient(dtype: torch.dtype, channel_dim: int) -> None:
    for x in [random_tensor(6, 5, 9, dtype=dtype), random_tensor(9, 7, 5, dtype=dtype).mT]:
        grad = random_tensor(*x.shape, dtype=dtype)
        above = torch.linspace(-0.04, 0.04, x.size(channel_dim))
        below = above.flip(0)
        shape = [1, 1, 1]
        shape[channel_dim] = -1
        factor = torch.where(x > 0, above.view(shape), below.view(shape))
        expected = grad.double() - grad.double().abs() * factor.double()
        actual = cpu_kernels.balancer_gradient(x, grad, channel_dim, above, below)
        torch.testing.assert_close(actual.double(), expected, **tolerance(dtype))
