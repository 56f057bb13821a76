"""Which few symbols per frame are worth the full joiner?

The simple loss tells how much probability passes through every arc; of all windows of R rows a
frame keeps the one that holds most of it. The windows are then moved so that a path through all
of them exists: they start at row 0, never go down, and rise slowly enough.

Invariant: bounds carry no gradient; only `do_rnnt_pruning` is differentiable.

Source: k2, k2/python/k2/rnnt_loss.py; arXiv 2206.13236, section 3.2.
"""

import functools
import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss.checks import check_boundary, check_lattice

__all__ = ["adjust_pruning_lower_bound", "do_rnnt_pruning", "get_rnnt_prune_ranges"]

_logger = logging.getLogger(__name__)


def get_rnnt_prune_ranges(
    px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int
) -> Tensor:
    """Rows of the lattice each frame keeps.

    Args:
        px_grad: (N, S, T+1) regular or (N, S, T) else, occupations from the simple loss.
        py_grad: (N, S+1, T), likewise.
        boundary: (N, 4) int64 rows [s_begin, t_begin, s_end, t_end].
        s_range: rows kept per frame. Raised where an utterance (of the regular type) could not
            emit all its symbols within the band, lowered to S + 1 where there are no more rows.

    Returns:
        (N, T, R) int64, R consecutive rows per frame; row 0 is in the first frame, the last row
        of the utterance in its last frame.

    Raises:
        UserError: s_range < 1, or shapes do not fit.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    check_lattice(px_grad, py_grad)
    if s_range < 1:
        raise UserError(f"s_range must be at least 1, got {s_range}", hint="recipes use 5")
    num_symbols, num_frames = px_grad.size(1), py_grad.size(2)
    check_boundary(
        boundary,
        num_utterances=px_grad.size(0),
        num_symbols=num_symbols,
        num_frames=num_frames,
    )
    is_regular = px_grad.size(2) == num_frames + 1
    last_row, frame_count = boundary[:, 2], boundary[:, 3]
    num_kept = _num_kept(last_row, frame_count, num_symbols, s_range, is_regular=is_regular)

    # Blank mass inside each window, less what enters the window from below on this frame.
    window_mass = py_grad.detach().unfold(1, num_kept, 1).sum(dim=-1)  # (N, W, T)
    entering = px_grad.detach()[:, : window_mass.size(1) - 1, :num_frames]
    window_mass = window_mass - F.pad(entering, (0, 0, 1, 0))
    first_row = _first_maximum(window_mass)  # (N, T)

    # From the last frame on the window must hold the final row.
    final_first_row = (last_row - num_kept + 1).clamp(min=0)
    frame = torch.arange(num_frames, device=first_row.device)
    is_final = frame >= frame_count[:, None] - 1
    first_row = torch.where(is_final, final_first_row[:, None], first_row)

    first_row = adjust_pruning_lower_bound(first_row, num_kept if is_regular else 2)
    return first_row[:, :, None] + torch.arange(num_kept, device=first_row.device)


def adjust_pruning_lower_bound(s_begin: Tensor, s_range: int) -> Tensor:
    """Move first rows so that they start at 0, never fall, and rise by less than `s_range`.

    Args:
        s_begin: (N, T) int64, wanted first row of each frame.
        s_range: a row may rise by at most s_range - 1 from one frame to the next.

    Returns:
        (N, T) int64, as near to the wanted rows as the rules allow.

    Example:
        >>> adjust_pruning_lower_bound(torch.tensor([[0, 2, 1, 3, 6, 5, 8]]), 3)
        tensor([[0, 1, 1, 3, 5, 6, 8]])

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    rising = _suffix_minimum(s_begin)
    # Distance to the steepest line allowed: where a later frame lies above the reach of an
    # earlier one, the earlier one is raised.
    steepest = (s_range - 1) * torch.arange(s_begin.size(1), device=s_begin.device)
    return steepest - _suffix_minimum(steepest - rising).clamp(min=0)


def do_rnnt_pruning(am: Tensor, lm: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder and decoder vectors of every kept lattice node.

    Args:
        am: (N, T, C) encoder vectors.
        lm: (N, S+1, D) decoder vectors.
        ranges: (N, T, R) int64 from `get_rnnt_prune_ranges`.

    Returns:
        am_pruned (N, T, R, C), a view of `am` (do not write into it), and lm_pruned (N, T, R, D).

    Raises:
        UserError: the shapes do not fit.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    if (
        am.ndim != 3
        or lm.ndim != 3
        or ranges.ndim != 3
        or am.shape[:2] != ranges.shape[:2]
        or lm.size(0) != am.size(0)
    ):
        raise UserError(
            "am must be (N, T, C), lm (N, S+1, D) and ranges (N, T, R), got "
            f"{tuple(am.shape)}, {tuple(lm.shape)} and {tuple(ranges.shape)}"
        )
    num_utterances, num_rows, lm_dim = lm.shape
    am_pruned = am[:, :, None, :].expand(-1, -1, ranges.size(2), -1)
    # One flat row index: the backward pass then adds into (N*(S+1), D) and needs no (T, S+1) table.
    utterance_start = num_rows * torch.arange(num_utterances, device=lm.device)[:, None, None]
    rows = (ranges + utterance_start).flatten()
    lm_pruned = lm.reshape(num_utterances * num_rows, lm_dim).index_select(0, rows)
    return am_pruned, lm_pruned.view(*ranges.shape, lm_dim)


def _num_kept(
    last_row: Tensor, frame_count: Tensor, num_symbols: int, s_range: int, *, is_regular: bool
) -> int:
    """Rows really kept per frame: `s_range` made large enough and no larger than the lattice."""
    num_kept = s_range
    if is_regular and last_row.numel():
        per_frame = torch.div(last_row - 1, frame_count.clamp(min=1), rounding_mode="trunc")
        needed = int(per_frame.max()) + 2
        if num_kept < needed:
            _log_once("s_range is too small for an utterance with many symbols: raised")
            num_kept = needed
    if num_kept > num_symbols:
        _log_once("s_range covers all symbols of a short batch: lowered, nothing is pruned")
        num_kept = num_symbols + 1
    return num_kept


@functools.cache
def _log_once(message: str) -> None:
    _logger.info(message)


def _suffix_minimum(x: Tensor) -> Tensor:
    """Minimum over this and all later columns of (N, T)."""
    return x.flip(1).cummin(dim=1).values.flip(1)


def _first_maximum(x: Tensor) -> Tensor:
    """Index of the first maximum over axis 1 of (N, W, T); argmax alone may pick any of equals."""
    num_windows = x.size(1)
    index = torch.arange(num_windows, device=x.device)[None, :, None]
    is_maximum = x == x.amax(dim=1, keepdim=True)
    return torch.where(is_maximum, index, num_windows - 1).amin(dim=1)
