"""How do the losses get their gradients without walking back through every operation?

The derivative of the total log-probability with respect to one node's logits is known:

    symbol occupation * 1[v = symbol] + blank occupation * 1[v = blank]
        - (both occupations together) * softmax(logits)[v]

The recursion has the occupations anyway, so backward needs one buffer of the size of the logits
instead of four.

Invariant: the same values and gradients as `logprobs` followed by `mutual_information_recursion`;
utterances whose score is not finite get a gradient of exactly zero.
"""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snowmelt.loss.checks import RnntType
from snowmelt.loss.lattice import lattice_forward_backward
from snowmelt.loss.logprobs import (
    add_delay_penalty,
    band_arcs,
    band_symbols,
    combined_arcs,
    finish_arcs,
)
from snowmelt.loss.pairwise import (
    PairwiseSums,
    pairwise_gradients,
    pairwise_sums,
    rows_inside,
)
from snowmelt.loss.recursion import whole_lattice

__all__ = [
    "LatticeOptions",
    "band_inside",
    "band_occupations",
    "band_scores",
    "simple_scores",
]

# Logits handled at once on a CPU: 1 MiB of float32 stays in the second-level cache of a core.
_BLOCK_LOGITS: Final = 2**18


class LatticeOptions(NamedTuple):
    """What all losses have in common: blank's id, lattice type, boundary, delay penalty."""

    termination_symbol: int
    rnnt_type: RnntType
    boundary: Tensor | None  # (N, 4)
    delay_penalty: float

    def solve(self, px: Tensor, py: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and occupations for px (N, S, T) and py (N, S+1, T) before finishing."""
        px, py = finish_arcs(px, py, self.rnnt_type, self.boundary)
        px = add_delay_penalty(px, py.size(2), self.boundary, self.delay_penalty)
        boundary = self.boundary
        if boundary is None:
            boundary = whole_lattice(py.size(0), py.size(1) - 1, py.size(2))
        return lattice_forward_backward(px, py, boundary)

    def occupations(self, px_grad: Tensor, py_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Occupation of symbol and blank at every node, both (N, S+1, T).

        A symbol arc of the constrained type also pays the blank of the row it leads to.
        """
        blank = py_grad
        symbol = torch.zeros_like(blank)
        symbol[:, :-1] = px_grad[:, :, : blank.size(2)]
        if self.rnnt_type == "constrained":
            blank = blank.clone()
            blank[:, 1:] += symbol[:, :-1]
        return symbol, blank


def simple_scores(
    lm: Tensor, am: Tensor, symbols: Tensor, lm_only_scale: float, options: LatticeOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N,) of the simple joiner, and its occupations px_grad and py_grad (detached).

    Args:
        lm: (N, S+1, V).
        am: (N, T, V).
        symbols: (N, S) int64.
        lm_only_scale: weight of the decoder alone, less than 1.
        options: the rest, already checked.
    """
    scores, px_grad, py_grad = _SimpleScores.apply(  # type: ignore[no-untyped-call]
        lm, am, symbols, lm_only_scale, options
    )
    return scores, px_grad, py_grad


def band_scores(logits: Tensor, symbols: Tensor, ranges: Tensor, options: LatticeOptions) -> Tensor:
    """Scores (N,) of a joiner known inside a band.

    Args:
        logits: (N, T, R, V), unnormalised.
        symbols: (N, S) int64.
        ranges: (N, T, R) int64 rows of the lattice.
        options: the rest, already checked.
    """
    scores: Tensor = _BandScores.apply(  # type: ignore[no-untyped-call]
        logits, symbols, ranges, options
    )
    return scores


class _SimpleScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lm: Tensor,
        am: Tensor,
        symbols: Tensor,
        lm_only_scale: float,
        options: LatticeOptions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        blank = options.termination_symbol
        pairwise = pairwise_sums(lm, am, options.boundary)
        px, py = combined_arcs(lm, am, pairwise.log_sums, symbols, blank)
        lm_sums = pairwise.lm_factors.sum(dim=2, keepdim=True)  # (N, S+1, 1)
        if lm_only_scale != 0.0:
            log_probs = lm - lm.amax(dim=2, keepdim=True) - lm_sums.log()
            px_lm = log_probs[:, : symbols.size(1)].gather(2, symbols[:, :, None])
            px = (1.0 - lm_only_scale) * px + lm_only_scale * px_lm
            py = (1.0 - lm_only_scale) * py + lm_only_scale * log_probs[:, :, blank, None]
        scores, px_grad, py_grad = options.solve(px, py)
        ctx.mark_non_differentiable(px_grad, py_grad)
        ctx.save_for_backward(symbols, lm_sums, scores, px_grad, py_grad, *pairwise)
        ctx.lm_only_scale, ctx.options = lm_only_scale, options
        return scores, px_grad, py_grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scores_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        symbols, lm_sums, scores, px_grad, py_grad, *rest = ctx.saved_tensors
        pairwise = PairwiseSums(*rest)
        options, lm_only_scale = ctx.options, ctx.lm_only_scale
        blank = options.termination_symbol
        combined_scale = 1.0 - lm_only_scale
        weight = scores_grad[:, None, None]
        by_symbol, by_blank = options.occupations(weight * px_grad, weight * py_grad)
        by_node = by_symbol + by_blank  # (N, S+1, T)
        by_symbol = by_symbol[:, :-1]

        lm_grad, am_grad = pairwise_gradients(pairwise, -combined_scale * by_node)
        am_grad.scatter_add_(
            2,
            symbols[:, None, :].expand(-1, am_grad.size(1), -1),
            combined_scale * by_symbol.transpose(1, 2),
        )
        am_grad[:, :, blank] += combined_scale * by_blank.sum(dim=1)
        # The decoder's own scores enter both parts: together with weight 1.
        lm_grad[:, :-1].scatter_add_(2, symbols[:, :, None], by_symbol.sum(dim=2, keepdim=True))
        lm_grad[:, :, blank] += by_blank.sum(dim=2)
        if lm_only_scale != 0.0:
            # Rows outside the boundary have no factors, so their sum may be 0.
            row_scale = by_node.sum(dim=2, keepdim=True) / lm_sums.clamp(min=1.0)
            lm_grad -= lm_only_scale * row_scale * pairwise.lm_factors
        _clear_not_finite(scores, lm_grad, am_grad)
        return lm_grad, am_grad, None, None, None


class _BandScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, symbols: Tensor, ranges: Tensor, options: LatticeOptions
    ) -> Tensor:
        targets = band_symbols(symbols, ranges, options.termination_symbol)
        is_inside = band_inside(ranges, options.boundary).flatten()
        # Outside the boundary +inf: their softmax is 0, whatever the padding's scores are.
        log_sums = logits.new_full(ranges.shape, torch.inf)
        rows = logits.reshape(-1, logits.size(3))
        for block in _row_blocks(rows):
            if bool(is_inside[block].any()):
                log_sums.view(-1)[block] = rows[block].logsumexp(dim=1)
        px, py = band_arcs(
            logits.gather(3, targets[..., None]).squeeze(3) - log_sums,
            logits[..., options.termination_symbol] - log_sums,
            ranges,
            symbols.size(1),
        )
        scores, px_grad, py_grad = options.solve(px, py)
        ctx.save_for_backward(logits, targets, ranges, log_sums, scores, px_grad, py_grad)
        ctx.options = options
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scores_grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, ranges, log_sums, scores, px_grad, py_grad = ctx.saved_tensors
        options: LatticeOptions = ctx.options
        weight = scores_grad[:, None, None]
        by_symbol, by_blank = band_occupations(
            options, weight * px_grad, weight * py_grad, ranges
        )  # (N, T, R)
        by_node = (by_symbol + by_blank).reshape(-1, 1)
        is_used = by_node[:, 0] != 0.0

        rows = logits.reshape(-1, logits.size(3))
        logits_grad = torch.empty_like(rows)
        for block in _row_blocks(rows):
            out = logits_grad[block]
            if bool(is_used[block].any()):
                torch.sub(rows[block], log_sums.view(-1, 1)[block], out=out).exp_()
                out.mul_(-by_node[block])
            # Nodes that nothing passes may hold anything, nan too.
            out.index_fill_(0, (~is_used[block]).nonzero()[:, 0], 0.0)
        logits_grad = logits_grad.view(logits.shape)
        logits_grad.scatter_add_(3, targets[..., None], by_symbol[..., None])
        logits_grad[..., options.termination_symbol] += by_blank
        _clear_not_finite(scores, logits_grad)
        return logits_grad, None, None, None


def band_inside(ranges: Tensor, boundary: Tensor | None) -> Tensor:
    """Nodes of the band (N, T, R) that lie inside the boundary."""
    if boundary is None:
        return torch.ones_like(ranges, dtype=torch.bool)
    _, frame_inside = rows_inside(boundary, 0, ranges.size(1))
    row_inside = (ranges >= boundary[:, 0, None, None]) & (ranges <= boundary[:, 2, None, None])
    return frame_inside[:, :, None] & row_inside


def band_occupations(
    options: LatticeOptions, px_grad: Tensor, py_grad: Tensor, ranges: Tensor
) -> tuple[Tensor, Tensor]:
    """Occupation of symbol and blank at the nodes of the band, both (N, T, R)."""
    by_symbol, by_blank = (
        occupation.gather(1, ranges.transpose(1, 2)).transpose(1, 2)
        for occupation in options.occupations(px_grad, py_grad)
    )
    return by_symbol, by_blank


def _row_blocks(rows: Tensor) -> list[slice]:
    """Runs of rows (M, V) of which one fits into the cache of each core."""
    length = max(1, rows.size(0))
    if rows.device.type == "cpu":
        length = max(1, _BLOCK_LOGITS // rows.size(1)) * torch.get_num_threads()
    return [slice(start, start + length) for start in range(0, rows.size(0), length)]


def _clear_not_finite(scores: Tensor, *grads: Tensor) -> None:
    """Set the gradients of utterances without a finite score to exactly zero, in place."""
    is_bad = ~scores.isfinite()
    if bool(is_bad.any()):
        for grad in grads:
            grad[is_bad] = 0.0
