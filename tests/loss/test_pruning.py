"""Bands: worked examples, the rules every band must keep, and the gather."""

import logging

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss import pruning
from snowmelt.loss.pruning import (
    adjust_pruning_lower_bound,
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
)
from snowmelt.loss.rnnt import RnntType, rnnt_loss_simple
from tests.loss.examples import EXAMPLE_B

WHOLE_B = torch.tensor([[0, 0, 2, 3]])


@pytest.mark.parametrize(
    ("rnnt_type", "s_range", "first_rows", "num_kept"),
    [
        ("regular", 2, [0, 1, 1], 2),
        ("regular", 3, [0, 0, 0], 3),
        ("modified", 1, [0, 1, 2], 1),
        ("modified", 2, [0, 0, 1], 2),
        ("constrained", 1, [0, 1, 2], 1),
        ("constrained", 2, [0, 0, 1], 2),
        ("regular", 1, [0, 1, 1], 2),  # raised: 2 symbols in 3 frames need 2 rows
        ("regular", 50, [0, 0, 0], 3),  # lowered: there are 3 rows
    ],
)
def test_worked_example(
    rnnt_type: RnntType, s_range: int, first_rows: list[int], num_kept: int
) -> None:
    lm, am, symbols, blank = EXAMPLE_B
    _, (px_grad, py_grad) = rnnt_loss_simple(
        lm, am, symbols, blank, WHOLE_B, rnnt_type, return_grad=True
    )
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, WHOLE_B, s_range)
    assert ranges.dtype == torch.int64
    assert ranges[0, :, 0].tolist() == first_rows
    assert torch.equal(ranges - ranges[:, :, :1], torch.arange(num_kept).expand(1, 3, num_kept))


def occupations(rnnt_type: RnntType, num_symbols: int, boundary: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_symbols)
    n, num_frames = boundary.size(0), int(boundary[:, 3].max())
    lm = 3 * torch.randn(n, num_symbols + 1, 7, generator=generator)
    am = 3 * torch.randn(n, num_frames, 7, generator=generator)
    symbols = torch.randint(1, 7, (n, num_symbols), generator=generator)
    _, grads = rnnt_loss_simple(lm, am, symbols, 0, boundary, rnnt_type, return_grad=True)
    return grads


@pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
@pytest.mark.parametrize("s_range", [2, 3, 5])
def test_rules_of_a_band(rnnt_type: RnntType, s_range: int) -> None:
    boundary = torch.tensor([[0, 0, 9, 20], [0, 0, 9, 9], [0, 0, 1, 14], [0, 0, 0, 3]])
    ranges = get_rnnt_prune_ranges(*occupations(rnnt_type, 9, boundary), boundary, s_range)
    first_row, num_kept = ranges[:, :, 0], ranges.size(2)
    assert first_row[:, 0].eq(0).all()
    rise = first_row.diff(dim=1)
    assert rise.min() >= 0
    assert rise.max() <= (num_kept - 1 if rnnt_type == "regular" else 1)
    assert ranges.max() <= 9
    for n, (_, _, last_row, num_frames) in enumerate(boundary.tolist()):
        assert ranges[n, num_frames - 1, -1] >= last_row


def test_many_symbols_in_few_frames_widen_the_band() -> None:
    boundary = torch.tensor([[0, 0, 9, 3]])
    ranges = get_rnnt_prune_ranges(*occupations("regular", 9, boundary), boundary, 2)
    assert ranges.size(2) == 4  # (9 - 1) // 3 + 2
    assert ranges[0, -1, -1] == 9


def test_all_transcripts_empty() -> None:
    boundary = torch.tensor([[0, 0, 0, 4], [0, 0, 0, 2]])
    ranges = get_rnnt_prune_ranges(*occupations("regular", 0, boundary), boundary, 5)
    assert ranges.shape == (2, 4, 1)
    assert ranges.eq(0).all()


def test_ties_take_the_lowest_window() -> None:
    py_grad = torch.full((1, 5, 6), 0.2)
    px_grad = torch.zeros(1, 4, 7)
    boundary = torch.tensor([[0, 0, 4, 6]])
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, 2)
    # Frame 5 must hold row 4, and rows rise by at most 1 a frame.
    assert ranges[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3]


def test_adjusting() -> None:
    wanted = torch.tensor([[0, 2, 1, 3, 6, 5, 8]])
    assert adjust_pruning_lower_bound(wanted, 2).tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert wanted.tolist() == [[0, 2, 1, 3, 6, 5, 8]]


def test_size_changes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    pruning._log_once.cache_clear()
    boundary = torch.tensor([[0, 0, 2, 3]])
    grads = occupations("regular", 2, boundary)
    with caplog.at_level(logging.INFO, logger="snowmelt.loss.pruning"):
        for _ in range(3):
            get_rnnt_prune_ranges(*grads, boundary, 50)
    assert len(caplog.records) == 1


def test_gather() -> None:
    generator = torch.Generator().manual_seed(0)
    am = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    lm = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    first_row = torch.tensor([[0, 1, 3], [0, 0, 2]])
    ranges = first_row[:, :, None] + torch.arange(2)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    assert am_pruned.shape == (2, 3, 2, 4) and lm_pruned.shape == (2, 3, 2, 6)
    assert am_pruned.data_ptr() == am.data_ptr()  # no copy
    for n in range(2):
        for t in range(3):
            for r in range(2):
                assert torch.equal(am_pruned[n, t, r], am[n, t])
                assert torch.equal(lm_pruned[n, t, r], lm[n, ranges[n, t, r]])
    assert torch.autograd.gradcheck(lambda a, m: do_rnnt_pruning(a, m, ranges), (am, lm))


def test_bad_arguments() -> None:
    boundary = torch.tensor([[0, 0, 2, 3]])
    grads = occupations("regular", 2, boundary)
    with pytest.raises(UserError, match="s_range must be at least 1, got 0"):
        get_rnnt_prune_ranges(*grads, boundary, 0)
    with pytest.raises(UserError, match="boundary of utterance 0"):
        get_rnnt_prune_ranges(*grads, boundary + 1, 2)
    with pytest.raises(UserError, match=r"lm \(N, S\+1, D\)"):
        do_rnnt_pruning(torch.zeros(2, 3, 4), torch.zeros(1, 5, 4), torch.zeros(2, 3, 2).long())
