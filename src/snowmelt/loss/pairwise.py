"""How are the scores of the simple joiner, am[t] + lm[s], normalised without forming them all?

    log Σ_v exp(am[t, v] + lm[s, v]) = log( exp(lm - max) @ exp(am - max)^T ) + both maxima

One matrix product: (N, S+1, T) numbers instead of (N, T, S+1, V).

Invariant: exact also where the product underflows (rows whose peaks lie far apart): those
utterances are computed again, summing the scores themselves, in bounded memory.

Source: k2, k2/python/k2/rnnt_loss.py (which accepts the wrong values at underflow).
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "PairwiseSums",
    "pairwise_gradients",
    "pairwise_log_sum_exp",
    "pairwise_sums",
    "rows_inside",
]

# Products of two factors below 1 are added up; sums that end up below these have lost digits
# to the smallest normal numbers, 1e-38 and 1e-308.
_LEAST_SUM: Final = {torch.float32: 1e-30, torch.float64: 1e-290}
# Scores formed at once where the matrix product is no good: 16 MiB of float32.
_MAX_SCORES: Final = 2**22


class PairwiseSums(NamedTuple):
    """The sums and what their gradient needs; `exact_*` holds the utterances computed again."""

    log_sums: Tensor  # (N, S+1, T)
    sums: Tensor  # (N, S+1, T), of the factors
    lm_factors: Tensor  # (N, S+1, V), exp(lm - maximum)
    am_factors: Tensor  # (N, T, V)
    exact_index: Tensor  # (E,) int64
    exact_lm: Tensor  # (E, S+1, V), the scores themselves
    exact_am: Tensor  # (E, T, V)


def pairwise_log_sum_exp(lm: Tensor, am: Tensor) -> Tensor:
    """log Σ_v exp(am[n, t, v] + lm[n, s, v]) for all pairs, differentiable.

    Args:
        lm: (N, S+1, V) scores.
        am: (N, T, V) scores.

    Returns:
        (N, S+1, T).
    """
    log_sums: Tensor = _PairwiseLogSumExp.apply(lm, am)  # type: ignore[no-untyped-call]
    return log_sums


def pairwise_sums(lm: Tensor, am: Tensor, boundary: Tensor | None) -> PairwiseSums:
    """The sums of all pairs; arguments as in `pairwise_log_sum_exp`.

    With `boundary` (N, 4) rows outside are left out: their sums mean nothing, and whatever the
    padding holds, nan too, reaches no gradient.
    """
    lm_max, am_max = lm.amax(dim=2, keepdim=True), am.amax(dim=2, keepdim=True)
    lm_factors, am_factors = (lm - lm_max).exp_(), (am - am_max).exp_()
    inside = None
    if boundary is not None:
        lm_inside, am_inside = rows_inside(boundary, lm.size(1), am.size(1))
        for factors, is_inside in ((lm_factors, lm_inside), (am_factors, am_inside)):
            # By index: filling by mask takes ten times as long.
            factors[(~is_inside).nonzero(as_tuple=True)] = 0.0
        inside = lm_inside[:, :, None] & am_inside[:, None, :]
    # Mixed precision must not touch this product: it holds the log-probabilities.
    with torch.autocast(device_type=lm.device.type, enabled=False):
        sums = lm_factors @ am_factors.transpose(1, 2)  # (N, S+1, T)
    is_lost = sums < _LEAST_SUM[lm.dtype]
    if inside is not None:
        is_lost &= inside
    sums += torch.finfo(lm.dtype).tiny
    log_sums = sums.log() + lm_max + am_max.transpose(1, 2)

    exact_index = is_lost.any(dim=2).any(dim=1).nonzero()[:, 0]
    exact_lm, exact_am = lm[exact_index], am[exact_index]
    for n, lm_n, am_n in zip(exact_index.tolist(), exact_lm, exact_am, strict=True):
        log_sums[n] = torch.cat(
            [(am_n[part, None] + lm_n).logsumexp(dim=2) for part in _frame_parts(lm_n, am_n)]
        ).T
    return PairwiseSums(log_sums, sums, lm_factors, am_factors, exact_index, exact_lm, exact_am)


def pairwise_gradients(pairwise: PairwiseSums, log_sums_grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients for lm (N, S+1, V) and am (N, T, V), given that for `log_sums` (N, S+1, T).

    In matrix form: with G = log_sums_grad / sums it is exp(am) * (G^T @ exp(lm)) for am.
    """
    scaled = log_sums_grad / pairwise.sums
    with torch.autocast(device_type=scaled.device.type, enabled=False):
        lm_grad = (scaled @ pairwise.am_factors).mul_(pairwise.lm_factors)
        am_grad = (scaled.transpose(1, 2) @ pairwise.lm_factors).mul_(pairwise.am_factors)
    for n, lm_n, am_n in zip(
        pairwise.exact_index.tolist(), pairwise.exact_lm, pairwise.exact_am, strict=True
    ):
        lm_grad[n] = 0.0
        for part in _frame_parts(lm_n, am_n):
            log_sums = pairwise.log_sums[n, :, part].T[:, :, None]
            share_grad = (am_n[part, None] + lm_n - log_sums).exp_()  # (frames, S+1, V)
            share_grad *= log_sums_grad[n, :, part].T[:, :, None]
            # Padding may hold nan; its gradient is 0 all the same.
            share_grad.masked_fill_(log_sums_grad[n, :, part].T[:, :, None] == 0.0, 0.0)
            am_grad[n, part] = share_grad.sum(dim=1)
            lm_grad[n] += share_grad.sum(dim=0)
    return lm_grad, am_grad


def rows_inside(boundary: Tensor, num_rows: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Rows (N, S+1) and frames (N, T) that lie inside each utterance's boundary, bool."""
    s_begin, t_begin, s_end, t_end = boundary[:, :, None].unbind(dim=1)
    row = torch.arange(num_rows, device=boundary.device)
    frame = torch.arange(num_frames, device=boundary.device)
    return (row >= s_begin) & (row <= s_end), (frame >= t_begin) & (frame < t_end)


def _frame_parts(lm: Tensor, am: Tensor) -> Iterator[slice]:
    """Runs of frames whose scores with all rows fit into the memory allowed."""
    num_frames = max(1, _MAX_SCORES // lm.numel())
    for start in range(0, am.size(0), num_frames):
        yield slice(start, start + num_frames)


class _PairwiseLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lm: Tensor, am: Tensor) -> Tensor:
        pairwise = pairwise_sums(lm, am, None)
        ctx.save_for_backward(*pairwise)
        return pairwise.log_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, log_sums_grad: Tensor) -> tuple[Tensor, Tensor]:
        return pairwise_gradients(PairwiseSums(*ctx.saved_tensors), log_sums_grad)
