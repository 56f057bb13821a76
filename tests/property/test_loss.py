"""Losses on random lattices: what must hold for every input."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snowmelt.loss.lattice.numba_cpu import numba_forward_backward
from snowmelt.loss.lattice.reference import reference_forward_backward
from snowmelt.loss.pruning import adjust_pruning_lower_bound
from snowmelt.loss.rnnt import (
    RnntType,
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)
from tests.loss.brute_force import brute_force, random_boundary

TYPES = st.sampled_from(["regular", "modified", "constrained"])
SEEDS = st.integers(0, 2**31)
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


def scores(seed: int, s: int, t: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lm = scale * torch.randn(2, s + 1, 6, generator=generator, dtype=torch.float64)
    am = scale * torch.randn(2, t, 6, generator=generator, dtype=torch.float64)
    return lm, am, torch.randint(1, 6, (2, s), generator=generator)


@EXAMPLES
@given(
    seed=SEEDS,
    num_symbols=st.integers(0, 4),
    num_frames=st.integers(1, 4),
    is_regular=st.booleans(),
    scale=st.sampled_from([0.1, 5.0, 300.0, 1e4]),
    forbidden=st.floats(0.0, 0.6),
)
def test_lattices_sum_all_paths(
    seed: int, num_symbols: int, num_frames: int, is_regular: bool, scale: float, forbidden: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, num_symbols, num_frames + int(is_regular)), (2, num_symbols + 1, num_frames)
    px, py = (
        (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).masked_fill(
            torch.rand(*shape, generator=generator) < forbidden, -torch.inf
        )
        for shape in shapes
    )
    rows = [random_boundary(num_symbols, num_frames, generator) for _ in range(2)]
    wanted = brute_force(px, py, rows)
    for program in (numba_forward_backward, reference_forward_backward):
        for ours, exact in zip(program(px, py, torch.tensor(rows)), wanted, strict=True):
            torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


@EXAMPLES
@given(seed=SEEDS, num_symbols=st.integers(0, 7), extra_frames=st.integers(0, 7), rnnt_type=TYPES)
def test_simple_is_full_is_unpruned(
    seed: int, num_symbols: int, extra_frames: int, rnnt_type: RnntType
) -> None:
    num_frames = max(1, num_symbols + extra_frames)
    lm, am, symbols = scores(seed, num_symbols, num_frames)
    boundary = torch.tensor(
        [[0, 0, num_symbols, num_frames], [0, 0, num_symbols // 2, max(1, num_frames // 2)]]
    )
    common = {"boundary": boundary, "rnnt_type": rnnt_type, "reduction": "none"}
    simple, grads = rnnt_loss_simple(lm, am, symbols, 0, return_grad=True, **common)
    full = rnnt_loss(am[:, :, None] + lm[:, None], symbols, 0, **common)
    torch.testing.assert_close(simple, full)
    assert simple.min() > 0

    previous = None
    for s_range in (2, num_symbols // 2 + 1, num_symbols + 1):
        ranges = get_rnnt_prune_ranges(*grads, boundary, s_range)
        am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
        pruned = rnnt_loss_pruned(am_pruned + lm_pruned, symbols, ranges, 0, **common)
        assert (pruned >= simple - 1e-9).all()
        previous = pruned
    assert previous is not None
    torch.testing.assert_close(previous, simple)


@EXAMPLES
@given(seed=SEEDS, num_symbols=st.integers(1, 6), padding=st.integers(0, 5), rnnt_type=TYPES)
def test_padding_and_order_change_nothing(
    seed: int, num_symbols: int, padding: int, rnnt_type: RnntType
) -> None:
    num_frames = num_symbols + 3
    lm, am, symbols = scores(seed, num_symbols, num_frames)
    alone = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, rnnt_type=rnnt_type, reduction="none")
    boundary = torch.tensor([[0, 0, num_symbols, num_frames]]).expand(2, 4)
    padded = rnnt_loss_smoothed(
        torch.nn.functional.pad(lm, (0, 0, 0, padding), value=7.0).flip(0),
        torch.nn.functional.pad(am, (0, 0, 0, padding), value=-3.0).flip(0),
        torch.nn.functional.pad(symbols, (0, padding)).flip(0),
        0,
        0.25,
        0.0,
        boundary,
        rnnt_type,
        reduction="none",
    )
    torch.testing.assert_close(padded.flip(0), alone)


@EXAMPLES
@given(
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=30),
    s_range=st.integers(2, 6),
)
def test_adjusted_bounds_start_at_0_and_rise_slowly(rows: list[int], s_range: int) -> None:
    adjusted = adjust_pruning_lower_bound(torch.tensor([rows]), s_range)[0]
    assert adjusted[0] == 0
    rise = adjusted.diff()
    assert bool((rise >= 0).all()) and bool((rise < s_range).all())
    again = adjust_pruning_lower_bound(adjusted[None], s_range)[0]
    assert torch.equal(again, adjusted)
