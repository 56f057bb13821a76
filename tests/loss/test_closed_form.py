"""Closed-form gradients against autograd through the ordinary path, and with numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.loss import closed_form
from snowmelt.loss.logprobs import (
    add_delay_penalty,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
)
from snowmelt.loss.recursion import mutual_information_recursion
from snowmelt.loss.rnnt import (
    RnntType,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

TYPES: list[RnntType] = ["regular", "modified", "constrained"]
BOUNDARY = torch.tensor([[0, 0, 3, 5], [0, 0, 2, 4], [1, 1, 3, 4], [0, 0, 0, 5]])
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


def case(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """lm (4, 4, 5), am (4, 5, 5), symbols (4, 3)."""
    generator = torch.Generator().manual_seed(0)
    lm = scale * torch.randn(4, 4, 5, generator=generator, dtype=torch.float64)
    am = scale * torch.randn(4, 5, 5, generator=generator, dtype=torch.float64)
    symbols = torch.randint(0, 5, (4, 3), generator=generator)
    return lm.requires_grad_(), am.requires_grad_(), symbols


def plain_smoothed(
    lm: Tensor, am: Tensor, symbols: Tensor, lm_scale: float, rnnt_type: RnntType
) -> Tensor:
    """Smoothed loss by ordinary operations on all logits; no closed form anywhere."""
    mixed = (1 - lm_scale) * (am[:, :, None] + lm[:, None]).log_softmax(dim=3)
    mixed = mixed + lm_scale * lm.log_softmax(dim=2)[:, None]
    px = mixed[:, :, :3].gather(3, symbols[:, None, :, None].expand(-1, 5, -1, -1))[..., 0]
    px, py = px.transpose(1, 2), mixed[..., 2].transpose(1, 2)
    if rnnt_type == "constrained":
        px = px + py[:, 1:]
    if rnnt_type == "regular":
        px = torch.nn.functional.pad(px, (0, 1), value=-torch.inf)
        px = px.masked_fill((torch.arange(6) == BOUNDARY[:, 3:])[:, None], -torch.inf)
    px = add_delay_penalty(px, 5, BOUNDARY, 0.1)
    return -mutual_information_recursion(px, py, BOUNDARY)


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("lm_scale", [0.0, 0.25])
@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_smoothed_equals_autograd(lm_scale: float, rnnt_type: RnntType, scale: float) -> None:
    lm, am, symbols = case(scale)
    ours = rnnt_loss_smoothed(lm, am, symbols, 2, lm_scale, 0.0, BOUNDARY, rnnt_type, 0.1, "none")
    wanted = plain_smoothed(lm, am, symbols, lm_scale, rnnt_type)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    for ours_grad, wanted_grad in zip(
        torch.autograd.grad(WEIGHTS @ ours, (lm, am)),
        torch.autograd.grad(WEIGHTS @ wanted, (lm, am)),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, wanted_grad, rtol=1e-9, atol=1e-10)


def band(rnnt_type: RnntType, num_kept: int, boundary: Tensor = BOUNDARY) -> Tensor:
    lm, am, symbols = case()
    _, grads = rnnt_loss_simple(lm, am, symbols, 2, boundary, rnnt_type, return_grad=True)
    return get_rnnt_prune_ranges(*grads, boundary, num_kept)


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("num_kept", [2, 3])
@pytest.mark.parametrize("block_logits", [7, 2**18])
def test_pruned_equals_autograd(
    rnnt_type: RnntType, num_kept: int, block_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_form, "_BLOCK_LOGITS", block_logits)
    _, _, symbols = case()
    ranges = band(rnnt_type, num_kept)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(*ranges.shape, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    ours = rnnt_loss_pruned(logits, symbols, ranges, 2, BOUNDARY, rnnt_type, 0.1, "none")
    px, py = get_rnnt_logprobs_pruned(logits, symbols, ranges, 2, BOUNDARY, rnnt_type)
    wanted = -mutual_information_recursion(add_delay_penalty(px, 5, BOUNDARY, 0.1), py, BOUNDARY)
    torch.testing.assert_close(ours, wanted)
    # Utterance 2 begins at row 1, which the band's first frame may miss: then it is impossible.
    weights = WEIGHTS.masked_fill(~wanted.isfinite(), 0.0)
    (ours_grad,) = torch.autograd.grad((weights * ours)[wanted.isfinite()].sum(), logits)
    (wanted_grad,) = torch.autograd.grad((weights * wanted)[wanted.isfinite()].sum(), logits)
    torch.testing.assert_close(ours_grad, wanted_grad)


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_full_equals_autograd(rnnt_type: RnntType) -> None:
    lm, am, symbols = case()
    logits = (am[:, :, None] + lm[:, None]).detach().requires_grad_()
    ours = rnnt_loss(logits, symbols, 2, BOUNDARY, rnnt_type, 0.0, "none")
    px, py = get_rnnt_logprobs_joint(logits, symbols, 2, rnnt_type, BOUNDARY)
    wanted = -mutual_information_recursion(px, py, BOUNDARY)
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(WEIGHTS @ loss, logits)[0] for loss in (ours, wanted))
    )


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("boundary", [None, BOUNDARY])
def test_gradcheck(rnnt_type: RnntType, boundary: Tensor | None) -> None:
    lm, am, symbols = case()
    common = (boundary, rnnt_type, 0.1, "sum")
    ranges = band(rnnt_type, 2, torch.tensor([[0, 0, 3, 5]]).expand(4, 4))
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, 2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    checks: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda m, a: rnnt_loss_simple(m, a, symbols, 2, *common), (lm, am)),
        (lambda m, a: rnnt_loss_smoothed(m, a, symbols, 2, 0.25, 0.0, *common), (lm, am)),
        (lambda m, a: rnnt_loss_smoothed(m, a, symbols, 2, 0.2, 0.1, *common), (lm, am)),
        (lambda m, a: rnnt_loss(a[:, :, None] + m[:, None], symbols, 2, *common), (lm, am)),
    ]
    if boundary is None:
        checks.append((lambda x: rnnt_loss_pruned(x, symbols, ranges, 2, *common), (logits,)))
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs)


def test_logits_of_any_layout() -> None:
    _, _, symbols = case()
    ranges = band("regular", 2)
    logits = torch.randn(5, *ranges.shape, generator=torch.Generator().manual_seed(1))
    strided = logits.permute(1, 2, 3, 0).requires_grad_()
    packed = strided.detach().contiguous().requires_grad_()
    losses = [
        rnnt_loss_pruned(x, symbols[:4], ranges, 2, None, reduction="sum")
        for x in (strided, packed)
    ]
    torch.testing.assert_close(losses[0], losses[1])
    grads = [
        torch.autograd.grad(loss, x)[0] for loss, x in zip(losses, (strided, packed), strict=True)
    ]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("padding", [torch.nan, torch.inf, 1e30])
def test_padding_may_hold_anything(padding: float) -> None:
    lm, am, symbols = (x.detach() for x in case())
    boundary = BOUNDARY[:2]
    lm, am, symbols = lm[:2], am[:2], symbols[:2]
    logits = am[:, :, None] + lm[:, None]
    dirty = [x.clone() for x in (lm, am, logits)]
    dirty[0][1, 3:], dirty[1][1, 4:] = padding, padding
    dirty[2][1, :, 3:], dirty[2][1, 4:] = padding, padding
    results = []
    for m, a, x in ((lm, am, logits), dirty):
        m, a, x = (y.clone().requires_grad_() for y in (m, a, x))
        simple = rnnt_loss_smoothed(m, a, symbols, 2, 0.25, 0.0, boundary, reduction="none")
        full = rnnt_loss(x, symbols, 2, boundary, reduction="none")
        grads = torch.autograd.grad((simple + full).sum(), (m, a, x))
        results.append((simple, full, *grads))
    for clean, ours in zip(*results, strict=True):
        assert torch.equal(clean, ours)


def test_bad_utterance_has_exactly_no_gradient_and_spoils_no_other() -> None:
    lm, am, symbols = (x.detach() for x in case())
    clean_am = am.clone().requires_grad_()
    am[0, 2] = torch.nan
    am[1, :, symbols[1, 1]] = -torch.inf  # its second symbol is impossible
    am.requires_grad_()
    lm.requires_grad_()

    def losses(a: Tensor) -> tuple[Tensor, Tensor]:
        return (
            rnnt_loss_smoothed(lm, a, symbols, 2, 0.25, 0.0, BOUNDARY, reduction="none"),
            rnnt_loss(a[:, :, None] + lm[:, None], symbols, 2, BOUNDARY, reduction="none"),
        )

    symbols[1, 1] = 3
    for ours, clean in zip(losses(am), losses(clean_am), strict=True):
        assert torch.equal(ours[2:], clean[2:])
        assert ours[0].isnan()
        lm_grad, am_grad = torch.autograd.grad(ours.sum(), (lm, am), retain_graph=True)
        assert am_grad[0].eq(0).all() and lm_grad[0].eq(0).all()
        (clean_grad,) = torch.autograd.grad(clean.sum(), clean_am, retain_graph=True)
        assert torch.equal(am_grad[2:], clean_grad[2:])


def test_impossible_utterance() -> None:
    lm, am, symbols = (x.detach() for x in case())
    symbols[:] = 3
    am[1, :, 3] = -torch.inf
    am.requires_grad_()
    loss = rnnt_loss_smoothed(lm, am, symbols, 2, 0.25, 0.0, BOUNDARY, reduction="none")
    assert loss[1] == torch.inf and loss[[0, 2, 3]].isfinite().all()
    (grad,) = torch.autograd.grad(loss.sum(), am)
    assert grad[1].eq(0).all() and grad.isfinite().all()
