"""What holds for all sizes, boundaries, types and scores: all programs give one answer."""

from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snowmelt.loss.lattice.numba_cpu import numba_forward_backward
from snowmelt.loss.lattice.reference import reference_forward_backward
from snowmelt.loss.rnnt import (
    RnntType,
    do_rnnt_pruning,
    rnnt_loss_pruned,
    rnnt_loss_pruned_joiner,
)
from tests.loss.brute_force import brute_force

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
# Log-probabilities that occur, and such as should not: forbidden, free, below every float64.
HOSTILE = [0.0, -1.0, -30.0, -300.0, -800.0, -5000.0, 90.0, -torch.inf]


class Lattice(NamedTuple):
    px: Tensor
    py: Tensor
    boundary: Tensor


@st.composite
def lattices(draw: st.DrawFn, max_symbols: int, max_frames: int) -> Lattice:
    """Some utterances, each with a boundary of its own; scores random, hostile or both."""
    num_symbols = draw(st.integers(0, max_symbols))
    num_frames = draw(st.integers(1, max_frames))
    is_regular = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        s_begin, t_begin = draw(st.integers(0, num_symbols)), draw(st.integers(0, num_frames))
        s_end, t_end = (
            draw(st.integers(s_begin, num_symbols)),
            draw(st.integers(t_begin, num_frames)),
        )
        rows.append([s_begin, t_begin, s_end, t_end])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale, share = (
        draw(st.sampled_from([1.0, 40.0, 1000.0])),
        draw(st.sampled_from([0.0, 0.2, 1.0])),
    )

    def scores(*shape: int) -> Tensor:
        values = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        hostile = torch.tensor(HOSTILE).double()[
            torch.randint(len(HOSTILE), shape, generator=generator)
        ]
        return torch.where(torch.rand(shape, generator=generator) < share, hostile, values)

    px = scores(len(rows), num_symbols, num_frames + int(is_regular))
    return Lattice(px, scores(len(rows), num_symbols + 1, num_frames), torch.tensor(rows))


@SETTINGS
@given(lattices(max_symbols=3, max_frames=4))
def test_programs_sum_all_paths(lattice: Lattice) -> None:
    wanted = brute_force(lattice.px, lattice.py, lattice.boundary.tolist())
    for program in (numba_forward_backward, reference_forward_backward):
        for ours, theirs in zip(program(*lattice), wanted, strict=True):
            # Sums of a few terms of up to 5000: the last digits of float64.
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@settings(SETTINGS, max_examples=30)
@given(lattices(max_symbols=40, max_frames=300))
def test_programs_agree_on_large_lattices(lattice: Lattice) -> None:
    ours, theirs = numba_forward_backward(*lattice), reference_forward_backward(*lattice)
    for first, second in zip(ours, theirs, strict=True):
        assert not first.isnan().any()
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-8)
    finite = ours[0].isfinite()
    num_symbols = (lattice.boundary[:, 2] - lattice.boundary[:, 0]).double()
    torch.testing.assert_close(
        ours[1].sum(dim=(1, 2))[finite], num_symbols[finite], rtol=1e-8, atol=1e-8
    )
    for grad in ours[1:]:
        assert grad[~finite].eq(0).all() and grad.ge(0).all() and grad.le(1 + 1e-8).all()


@SETTINGS
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(0, 6), st.integers(6, 12), st.integers(1, 5), st.integers(2, 7)),
    rnnt_type=st.sampled_from(["regular", "modified", "constrained"]),
    has_bias=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 20.0]),
    delay_penalty=st.sampled_from([0.0, 0.1]),
)
def test_fused_loss_equals_the_loss_in_steps(
    seed: int,
    sizes: tuple[int, int, int, int],
    rnnt_type: RnntType,
    has_bias: bool,
    scale: float,
    delay_penalty: float,
) -> None:
    num_symbols, num_frames, num_kept, vocab_size = sizes
    num_kept = min(num_kept, num_symbols + 1)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        values = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    am, lm = random(2, num_frames, 4), random(2, num_symbols + 1, 4)
    weight, bias = random(vocab_size, 4), random(vocab_size) if has_bias else None
    symbols = torch.randint(vocab_size, (2, num_symbols), generator=generator)
    blank = int(torch.randint(vocab_size, (), generator=generator))
    lengths = [
        [0, 0, int(s), int(t)]
        for s, t in zip(
            torch.randint(num_symbols + 1, (2,), generator=generator),
            torch.randint(max(1, num_symbols), num_frames + 1, (2,), generator=generator),
            strict=True,
        )
    ]
    boundary = torch.tensor(lengths)
    # Any band will do, also one that lets no path through.
    first = torch.randint(num_symbols + 2 - num_kept, (2, num_frames), generator=generator)
    ranges = first.sort(dim=1).values[:, :, None] + torch.arange(num_kept)
    arguments = (symbols, ranges, blank, boundary, rnnt_type, delay_penalty, "none")
    ours = rnnt_loss_pruned_joiner(am, lm, weight, bias, *arguments)
    pruned_am, pruned_lm = do_rnnt_pruning(am, lm, ranges)
    logits = torch.nn.functional.linear((pruned_am + pruned_lm).tanh(), weight, bias)
    wanted = rnnt_loss_pruned(logits, *arguments)
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    learned = [am, lm, weight] + ([] if bias is None else [bias])
    for ours_grad, wanted_grad in zip(
        torch.autograd.grad(ours.sum(), learned),
        torch.autograd.grad(wanted.sum(), learned),
        strict=True,
    ):
        assert ours_grad.isfinite().all()
        torch.testing.assert_close(ours_grad, wanted_grad, rtol=1e-7, atol=1e-8)
