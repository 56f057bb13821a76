"""Normalisers of the simple joiner against the scores formed one by one."""

import pytest
import torch
from torch import Tensor

from snowmelt.loss import pairwise
from snowmelt.loss.pairwise import (
    pairwise_gradients,
    pairwise_log_sum_exp,
    pairwise_sums,
    rows_inside,
)


def naive(lm: Tensor, am: Tensor) -> Tensor:
    return (lm[:, :, None] + am[:, None]).logsumexp(dim=3)


def scores(scale: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lm = scale * torch.randn(2, 4, 6, generator=generator, dtype=dtype)
    am = scale * torch.randn(2, 5, 6, generator=generator, dtype=dtype)
    return lm.requires_grad_(), am.requires_grad_()


# 400 and 3000: the factors of distant peaks underflow in float32 and float64.
@pytest.mark.parametrize("scale", [1.0, 400.0, 3000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(
    scale: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise, "_MAX_SCORES", 50)  # two frames at a time
    lm, am = scores(scale, dtype)
    weight = torch.linspace(-1.0, 1.0, 40, dtype=dtype).view(2, 4, 5)
    ours, wanted = pairwise_log_sum_exp(lm, am), naive(lm, am)
    # 1e-6: float32 rounds scores of 1000 to 1e-4.
    tolerance = {"rtol": 1e-6, "atol": 1e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(ours, wanted, **tolerance)
    for ours_grad, wanted_grad in zip(
        torch.autograd.grad((weight * ours).sum(), (lm, am)),
        torch.autograd.grad((weight * wanted).sum(), (lm, am)),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, wanted_grad, rtol=1e-4, atol=1e-5)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(pairwise_log_sum_exp, scores(1.0))


@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_padding_reaches_no_gradient(scale: float) -> None:
    lm, am = (x.detach() for x in scores(scale))
    lm[1, 3:], am[1, 2:] = torch.nan, torch.nan
    boundary = torch.tensor([[0, 0, 3, 5], [0, 0, 2, 2]])
    sums = pairwise_sums(lm, am, boundary)
    torch.testing.assert_close(sums.log_sums[1, :3, :2], naive(lm, am)[1, :3, :2])
    log_sums_grad = torch.ones(2, 4, 5).double()
    log_sums_grad[1, 3:], log_sums_grad[1, :, 2:] = 0.0, 0.0
    lm_grad, am_grad = pairwise_gradients(sums, log_sums_grad)
    assert lm_grad.isfinite().all() and am_grad.isfinite().all()
    assert lm_grad[1, 3:].eq(0).all() and am_grad[1, 2:].eq(0).all()


def test_mixed_precision_leaves_the_product_alone() -> None:
    lm, am = (x.detach().float() for x in scores(1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = pairwise_log_sum_exp(lm, am)
    assert torch.equal(ours, pairwise_log_sum_exp(lm, am))


def test_rows_inside() -> None:
    rows, frames = rows_inside(torch.tensor([[1, 2, 2, 4]]), 4, 5)
    assert rows.tolist() == [[False, True, True, False]]
    assert frames.tolist() == [[False, False, True, True, False]]
