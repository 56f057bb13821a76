"""The fused loss against the same loss in ordinary steps: values, gradients, what is left out."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss import pruned_joiner
from snowmelt.loss.rnnt import (
    RnntType,
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss_pruned,
    rnnt_loss_pruned_joiner,
    rnnt_loss_simple,
)

TYPES: list[RnntType] = ["regular", "modified", "constrained"]
BOUNDARY = torch.tensor([[0, 0, 4, 7], [0, 0, 2, 5], [0, 0, 0, 7], [0, 0, 3, 4]])
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
BLANK = 2


class Case(NamedTuple):
    am: Tensor  # (4, 7, 6)
    lm: Tensor  # (4, 5, 6)
    weight: Tensor  # (5, 6)
    bias: Tensor  # (5,)
    symbols: Tensor  # (4, 4)

    @property
    def learned(self) -> tuple[Tensor, ...]:
        return self[:4]


def case(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    symbols = torch.randint(0, 5, (4, 4), generator=generator)
    return Case(random(4, 7, 6), random(4, 5, 6), random(5, 6), random(5), symbols)


def band(rnnt_type: RnntType = "regular", num_kept: int = 3, boundary: Tensor = BOUNDARY) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    lm, am = torch.randn(4, 5, 5, generator=generator), torch.randn(4, 7, 5, generator=generator)
    symbols = case().symbols
    _, grads = rnnt_loss_simple(lm, am, symbols, BLANK, boundary, rnnt_type, return_grad=True)
    return get_rnnt_prune_ranges(*grads, boundary, num_kept)


def in_steps(
    inputs: Case, ranges: Tensor, rnnt_type: RnntType = "regular", delay_penalty: float = 0.0
) -> Tensor:
    am, lm = do_rnnt_pruning(inputs.am, inputs.lm, ranges)
    logits = torch.nn.functional.linear((am + lm).tanh(), inputs.weight, inputs.bias)
    return rnnt_loss_pruned(
        logits, inputs.symbols, ranges, BLANK, BOUNDARY, rnnt_type, delay_penalty, "none"
    )


def fused(inputs: Case, ranges: Tensor, *options: object, **more: object) -> Tensor:
    function: Callable[..., Tensor] = rnnt_loss_pruned_joiner
    return function(
        *inputs.learned, inputs.symbols, ranges, BLANK, BOUNDARY, *options, reduction="none", **more
    )


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("num_kept", [2, 3, 5])
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_equals_the_loss_in_steps(
    rnnt_type: RnntType, num_kept: int, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruned_joiner, "_BLOCK_LOGITS", 5 * block_rows)
    monkeypatch.setattr(pruned_joiner, "_LEAST_BLOCK_ROWS", 1)
    inputs, ranges = case(), band(rnnt_type, num_kept)
    wanted = in_steps(inputs, ranges, rnnt_type, 0.1)
    ours = fused(inputs, ranges, rnnt_type, 0.1)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    for ours_grad, wanted_grad in zip(
        torch.autograd.grad(WEIGHTS @ ours, inputs.learned),
        torch.autograd.grad(WEIGHTS @ wanted, inputs.learned),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, wanted_grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_gradcheck(rnnt_type: RnntType) -> None:
    inputs, ranges = case(), band(rnnt_type)

    def loss(*learned: Tensor) -> Tensor:
        return WEIGHTS @ fused(Case(*learned, inputs.symbols), ranges, rnnt_type, 0.1)

    assert torch.autograd.gradcheck(loss, inputs.learned)


def test_without_bias() -> None:
    inputs, ranges = case(), band()
    zero = inputs._replace(bias=torch.zeros_like(inputs.bias))
    arguments = (inputs.symbols, ranges, BLANK, BOUNDARY)
    bare = rnnt_loss_pruned_joiner(inputs.am, inputs.lm, inputs.weight, None, *arguments)
    assert bare == rnnt_loss_pruned_joiner(*zero.learned, *arguments)
    bare.backward()
    assert inputs.weight.grad is not None


@pytest.mark.parametrize("padding", [torch.nan, torch.inf, 1e30])
def test_padding_may_hold_anything(padding: float) -> None:
    inputs, ranges = case(torch.float32), band()
    dirty = case(torch.float32)
    with torch.no_grad():
        for n, (_, _, num_symbols, num_frames) in enumerate(BOUNDARY.tolist()):
            dirty.am[n, num_frames:] = padding
            dirty.lm[n, num_symbols + 1 :] = padding
    results = []
    for arguments in (inputs, dirty):
        loss = fused(arguments, ranges)
        results.append((loss, *torch.autograd.grad(loss.sum(), arguments.learned)))
    for clean, ours in zip(*results, strict=True):
        assert torch.equal(clean, ours)


def test_bad_utterance_has_exactly_no_gradient_and_spoils_no_other() -> None:
    inputs, ranges = case(), band()
    alone = inputs._replace(am=inputs.am.detach().clone().requires_grad_())
    with torch.no_grad():
        inputs.am[1, 2] = torch.nan
        inputs.lm[3, 1] = torch.nan
    ours, clean = fused(inputs, ranges), fused(alone, ranges)
    assert ours.isnan().tolist() == [False, True, False, True]
    good = torch.tensor([0, 2])
    assert torch.equal(ours[good], clean[good])
    ours_grads = torch.autograd.grad(ours.sum(), inputs.learned)
    assert ours_grads[0][[1, 3]].eq(0).all() and ours_grads[1][[1, 3]].eq(0).all()
    for ours_grad, clean_grad in zip(
        ours_grads, torch.autograd.grad(clean[good].sum(), alone.learned), strict=True
    ):
        torch.testing.assert_close(ours_grad, clean_grad, rtol=1e-12, atol=1e-12)


def test_impossible_symbol_makes_the_loss_infinite_and_gives_no_gradient() -> None:
    inputs, ranges = case(), band()
    inputs.symbols[:] = 3
    with torch.no_grad():
        inputs.bias[3] = -torch.inf
    loss = fused(inputs, ranges)
    assert loss.isinf().tolist() == [True, True, False, True]
    for grad in torch.autograd.grad(loss.sum(), inputs.learned):
        assert grad.isfinite().all()


@pytest.mark.parametrize("negligible", [1e-3, 0.1])
def test_left_out_rows_change_gradients_no_more_than_promised(negligible: float) -> None:
    inputs, ranges = case(scale=2.0), band(num_kept=5)
    weights = WEIGHTS.abs()
    exact, short = (fused(inputs, ranges, negligible=x) for x in (0.0, negligible))
    assert torch.equal(exact, short)
    exact_grads, short_grads = (
        torch.autograd.grad(weights @ loss, inputs.learned) for loss in (exact, short)
    )
    row_bound = 2 * negligible * float(weights.max() * inputs.weight.detach().abs().max())
    num_rows = int(BOUNDARY[:, 3].sum()) * ranges.size(2)
    sum_bound = negligible * float(weights.max()) * num_rows
    bounds = [ranges.size(2) * row_bound, 7 * row_bound, sum_bound, sum_bound]
    errors = [
        float((ours - wanted).abs().max())
        for ours, wanted in zip(short_grads, exact_grads, strict=True)
    ]
    assert any(error > 0.0 for error in errors)
    for error, bound in zip(errors, bounds, strict=True):
        assert error <= bound


def test_rows_without_weight_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows: list[int] = []
    hidden = pruned_joiner._Layer.hidden

    def counted(self: pruned_joiner._Layer, rows: pruned_joiner._Rows) -> Tensor:
        num_rows.append(rows.node.size(0))
        return hidden(self, rows)

    monkeypatch.setattr(pruned_joiner._Layer, "hidden", counted)
    inputs, ranges = case(), band(num_kept=5)
    loss = fused(inputs, ranges)
    # (S + 1) * T of each utterance: nothing outside its boundary.
    assert num_rows == [5 * 7 + 3 * 5 + 1 * 7 + 4 * 4]
    loss[1].backward()
    # Not row S of frame 4, for example: nothing leaves (2, 4) but the last blank.
    assert len(num_rows) == 2 and 0 < num_rows[1] <= 3 * 5


@pytest.mark.parametrize("product_dtype", [torch.bfloat16, torch.float16])
def test_products_in_half_precision(product_dtype: torch.dtype) -> None:
    inputs, ranges = case(torch.float32), band()
    exact = fused(inputs, ranges)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # does not meddle
        short = fused(inputs, ranges, product_dtype=product_dtype)
    assert short.dtype == torch.float32 and not torch.equal(exact, short)
    torch.testing.assert_close(short, exact, rtol=1e-2, atol=0.0)
    for short_grad, exact_grad in zip(
        torch.autograd.grad(short.sum(), inputs.learned),
        torch.autograd.grad(exact.sum(), inputs.learned),
        strict=True,
    ):
        assert short_grad.dtype == torch.float32
        largest = float(exact_grad.abs().max())
        torch.testing.assert_close(short_grad, exact_grad, rtol=0.0, atol=2e-2 * largest)


def test_no_path_through_the_batch() -> None:
    inputs = case()
    ranges = torch.zeros(0, 7, 2, dtype=torch.int64)
    empty = Case(inputs.am[:0], inputs.lm[:0], inputs.weight, inputs.bias, inputs.symbols[:0])
    loss = rnnt_loss_pruned_joiner(
        *empty.learned, empty.symbols, ranges, BLANK, BOUNDARY[:0], reduction="sum"
    )
    assert loss == 0.0
    loss.backward()
    assert inputs.weight.grad is not None and inputs.weight.grad.eq(0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"am": torch.zeros(4, 7, 5)}, "weight (V, J)"),
        ({"bias": torch.zeros(6)}, "bias (V,)"),
        ({"lm": torch.zeros(4, 5, 6)}, "one type"),
        ({"ranges": torch.zeros(4, 6, 3, dtype=torch.int64)}, "ranges must be"),
        ({"symbols": torch.zeros(4, 5, dtype=torch.int64)}, "symbols must be"),
        ({"termination_symbol": 5}, "blank id 5"),
        ({"reduction": "product"}, "unknown reduction"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, object], message: str) -> None:
    arguments = {**case()._asdict(), "ranges": band(), "termination_symbol": BLANK, **change}
    function: Callable[..., Tensor] = rnnt_loss_pruned_joiner
    with pytest.raises(UserError) as info:
        function(**arguments)
    assert message in str(info.value)
