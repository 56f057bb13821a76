"""The losses: worked examples to all printed digits, self-checks of the original, reductions."""

import logging

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss.rnnt import (
    RnntType,
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)
from tests.loss.examples import EXAMPLE_A, EXAMPLE_B, Example

TYPES: list[RnntType] = ["regular", "modified", "constrained"]
EXAMPLES = {"A": EXAMPLE_A, "B": EXAMPLE_B}

# Ten decimals are given.
ATOL = 1e-10


def logits_of(example: Example) -> Tensor:
    lm, am, _, _ = example
    return am[:, :, None] + lm[:, None]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("A", (7.5040133560, 6.5457850042, 9.6587693286)),
        ("B", (2.6815306967, 0.7264993315, 3.2532538148)),
    ],
)
def test_simple_and_full_examples(name: str, wanted: tuple[float, ...]) -> None:
    example = EXAMPLES[name]
    for rnnt_type, loss in zip(TYPES, wanted, strict=True):
        simple = rnnt_loss_simple(*example, rnnt_type=rnnt_type)
        full = rnnt_loss(logits_of(example), *example[2:], rnnt_type=rnnt_type)
        assert float(simple) == pytest.approx(loss, abs=ATOL)
        assert float(full) == pytest.approx(loss, abs=ATOL)


@pytest.mark.parametrize(
    ("name", "lm_scale", "am_scale", "wanted"),
    [
        ("A", 0.0, 0.333, (6.8382603495, 6.6166099417, 9.2626572384)),
        ("A", 0.1, 0.1, (7.2976970459, 6.2196078759, 9.3233539959)),
        ("A", 0.25, 0.0, (7.3422131627, 5.6698414018, 9.1106634549)),
        ("B", 0.25, 0.0, (2.5360109530, 0.9402070224, 3.1903182007)),
        ("B", 0.1, 0.1, (2.7933284423, 0.8709799211, 3.3542917323)),
    ],
)
def test_smoothed_examples(
    name: str, lm_scale: float, am_scale: float, wanted: tuple[float, ...]
) -> None:
    for rnnt_type, loss in zip(TYPES, wanted, strict=True):
        ours = rnnt_loss_smoothed(*EXAMPLES[name], lm_scale, am_scale, rnnt_type=rnnt_type)
        assert float(ours) == pytest.approx(loss, abs=ATOL)


def test_delay_penalty_and_boundary_examples() -> None:
    boundary = torch.tensor([[0, 0, 1, 2]])
    penalised = (2.6011537187, 0.7204526240, 3.2346981851)
    cut = (2.0820630600, 0.7442159981, 2.0820630600)
    for rnnt_type, with_penalty, with_boundary in zip(TYPES, penalised, cut, strict=True):
        ours = rnnt_loss_simple(*EXAMPLE_B, rnnt_type=rnnt_type, delay_penalty=0.1)
        assert float(ours) == pytest.approx(with_penalty, abs=ATOL)
        ours = rnnt_loss_simple(*EXAMPLE_B, boundary, rnnt_type)
        assert float(ours) == pytest.approx(with_boundary, abs=ATOL)


def test_occupation_example() -> None:
    _, (px_grad, py_grad) = rnnt_loss_simple(*EXAMPLE_B, return_grad=True)
    wanted_px = [[0.845640, 0.119594, 0.034767, 0.0], [0.358732, 0.212740, 0.428528, 0.0]]
    wanted_py = [[0.154360, 0.034767, 0], [0.486908, 0.393761, 0], [0.358732, 0.571472, 1]]
    torch.testing.assert_close(px_grad[0], torch.tensor(wanted_px).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(py_grad[0], torch.tensor(wanted_py).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rnnt_type", "first_rows", "num_kept", "wanted"),
    [
        ("regular", [0, 1, 1], 2, 3.4012115857),
        ("regular", [0, 0, 0], 3, 2.6815306967),
        ("modified", [0, 1, 2], 1, 2.7512813360),
        ("modified", [0, 0, 1], 2, 0.7264993315),
        ("constrained", [0, 1, 2], 1, torch.inf),
        ("constrained", [0, 0, 1], 2, 3.6135419828),
    ],
)
def test_pruned_examples(
    rnnt_type: RnntType, first_rows: list[int], num_kept: int, wanted: float
) -> None:
    lm, am, symbols, blank = EXAMPLE_B
    ranges = torch.tensor(first_rows)[None, :, None] + torch.arange(num_kept)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    logits = (am_pruned + lm_pruned).requires_grad_()
    loss = rnnt_loss_pruned(logits, symbols, ranges, blank, rnnt_type=rnnt_type)
    assert float(loss.detach()) == pytest.approx(wanted, abs=ATOL)
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert bool(logits.grad.eq(0).all()) == (wanted == torch.inf)


def batch(num_symbols: int = 9, num_frames: int = 20) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """lm, am, symbols and boundary of three utterances of different lengths, float64."""
    generator = torch.Generator().manual_seed(0)
    lm = 2 * torch.randn(3, num_symbols + 1, 7, generator=generator, dtype=torch.float64)
    am = 2 * torch.randn(3, num_frames, 7, generator=generator, dtype=torch.float64)
    symbols = torch.randint(1, 7, (3, num_symbols), generator=generator)
    boundary = torch.tensor(
        [
            [0, 0, num_symbols, num_frames],
            [0, 0, num_symbols // 2, num_frames - 3],
            [0, 0, 0, num_frames // 2],
        ]
    )
    return lm, am, symbols, boundary


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_wider_bands_come_down_to_the_full_loss(rnnt_type: RnntType) -> None:
    lm, am, symbols, boundary = batch()
    simple, grads = rnnt_loss_simple(
        lm, am, symbols, 0, boundary, rnnt_type, reduction="none", return_grad=True
    )
    losses = []
    for s_range in (2, 4, 7, 10):
        ranges = get_rnnt_prune_ranges(*grads, boundary, s_range)
        am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
        losses.append(
            rnnt_loss_pruned(
                am_pruned + lm_pruned, symbols, ranges, 0, boundary, rnnt_type, reduction="none"
            )
        )
    steps = torch.stack(losses).diff(dim=0)
    assert steps.max() < 1e-9
    torch.testing.assert_close(losses[-1], simple)


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_constants_per_frame_or_row_change_nothing(rnnt_type: RnntType) -> None:
    lm, am, symbols, boundary = batch()
    before = rnnt_loss_simple(lm, am, symbols, 0, boundary, rnnt_type, reduction="none")
    lm = lm + torch.linspace(-40, 40, lm.size(1)).double()[:, None]
    am = am + torch.linspace(60, -10, am.size(1)).double()[:, None]
    after = rnnt_loss_simple(lm, am, symbols, 0, boundary, rnnt_type, reduction="none")
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_explicit_whole_boundary_is_no_boundary(rnnt_type: RnntType) -> None:
    lm, am, symbols, _ = batch()
    whole = torch.tensor([[0, 0, 9, 20]]).expand(3, 4)
    for delay_penalty in (0.0, 0.3):
        results = [
            rnnt_loss_simple(lm, am, symbols, 0, boundary, rnnt_type, delay_penalty)
            for boundary in (None, whole)
        ]
        torch.testing.assert_close(results[0], results[1])


def test_smoothing_only_with_the_decoder_keeps_utterances_apart() -> None:
    lm, am, symbols, boundary = batch()
    together = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, boundary, reduction="none")
    for n, (_, _, num_symbols, num_frames) in enumerate(boundary.tolist()):
        alone = rnnt_loss_smoothed(
            lm[n : n + 1, : num_symbols + 1],
            am[n : n + 1, :num_frames],
            symbols[n : n + 1, :num_symbols],
            0,
            0.25,
            0.0,
        )
        torch.testing.assert_close(alone, together[n])


def test_average_decoder_sees_the_whole_batch() -> None:
    # As the original does: with am_only_scale the loss depends on padding. No recipe uses it.
    lm, am, symbols, boundary = batch()
    changed = lm.clone()
    changed[2, 5:] += torch.arange(7.0).double()  # padding of utterance 2
    losses = [
        rnnt_loss_smoothed(x, am, symbols, 0, 0.0, 0.1, boundary, reduction="none")
        for x in (lm, changed)
    ]
    assert (losses[0] - losses[1]).abs().min() > 1e-6


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("num_symbols", [0, 1])
def test_smallest_lattices(num_symbols: int, num_frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lm = torch.randn(2, num_symbols + 1, 4, generator=generator).requires_grad_()
    am = torch.randn(2, num_frames, 4, generator=generator).requires_grad_()
    symbols = torch.ones(2, num_symbols, dtype=torch.int64)
    boundary = torch.tensor([[0, 0, num_symbols, num_frames], [0, 0, 0, 1]])
    simple, grads = rnnt_loss_smoothed(
        lm, am, symbols, 0, 0.25, 0.0, boundary, reduction="sum", return_grad=True
    )
    ranges = get_rnnt_prune_ranges(*grads, boundary, 5)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    pruned = rnnt_loss_pruned(am_pruned + lm_pruned, symbols, ranges, 0, boundary, reduction="sum")
    (simple + pruned).backward()
    assert (simple + pruned).isfinite()
    assert lm.grad is not None and lm.grad.isfinite().all()
    assert am.grad is not None and am.grad.isfinite().all()


def test_large_scores_do_not_overflow() -> None:
    lm, am, symbols, boundary = batch()
    lm, am = (400 * lm).float().requires_grad_(), (400 * am).float().requires_grad_()
    loss = rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction="none")
    exact = rnnt_loss_simple(lm.double(), am.double(), symbols, 0, boundary, reduction="none")
    torch.testing.assert_close(loss, exact.float(), rtol=1e-5, atol=1e-4)
    loss.sum().backward()
    assert lm.grad is not None and lm.grad.isfinite().all()


def test_reductions() -> None:
    lm, am, symbols, boundary = batch()
    each = rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction="none")
    assert each.shape == (3,)
    total = rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction="sum")
    mean = rnnt_loss_simple(lm, am, symbols, 0, boundary)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.mean())
    for wrong in ("batch", None):
        with pytest.raises(UserError, match="unknown reduction"):
            rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction=wrong)  # type: ignore[call-overload]


def test_occupations_do_not_depend_on_the_reduction() -> None:
    lm, am, symbols, boundary = batch()
    results = [
        rnnt_loss_smoothed(
            lm, am, symbols, 0, 0.25, 0.0, boundary, reduction=reduction, return_grad=True
        )[1]
        for reduction in ("none", "mean", "sum")
    ]
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])
    assert results[0][0].min() >= 0


@pytest.mark.parametrize("use_hat_loss", [False, True])
def test_hat_and_plain_losses_are_probabilities(use_hat_loss: bool) -> None:
    # Over all transcripts of one symbol at most, on one frame: their probabilities add up to
    # less than 1, the rest belongs to longer transcripts.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 2, 4, generator=generator, dtype=torch.float64)
    ranges = torch.arange(2).expand(1, 1, 2)
    total = torch.zeros((), dtype=torch.float64)
    for symbol in (1, 2, 3):
        loss = rnnt_loss_pruned(
            logits, torch.tensor([[symbol]]), ranges, 0, use_hat_loss=use_hat_loss
        )
        total += torch.exp(-loss)
    empty = torch.zeros(1, 0, dtype=torch.int64)
    total += torch.exp(
        -rnnt_loss_pruned(logits[:, :, :1], empty, ranges[:, :, :1], 0, use_hat_loss=use_hat_loss)
    )
    assert 0.3 < float(total) < 1.0


def test_training_step_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lm, am, symbols, boundary = batch()
    with caplog.at_level(logging.WARNING):
        rnnt_loss_simple(lm, am, symbols, 0, boundary)
    assert not caplog.records
