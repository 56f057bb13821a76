"""What is the total log-probability of a lattice, as a differentiable function of its arcs?

Invariant: the occupations are computed in the forward pass; backward only scales them.

Source: k2, k2/python/k2/mutual_information.py.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snowmelt.core.errors import UserError
from snowmelt.loss.checks import check_boundary, check_lattice
from snowmelt.loss.lattice import lattice_forward_backward

__all__ = ["joint_mutual_information_recursion", "mutual_information_recursion", "whole_lattice"]

_Gradients = tuple[Tensor, Tensor]


@overload
def mutual_information_recursion(
    px: Tensor, py: Tensor, boundary: Tensor | None = None, return_grad: Literal[False] = False
) -> Tensor: ...
@overload
def mutual_information_recursion(
    px: Tensor, py: Tensor, boundary: Tensor | None = None, *, return_grad: Literal[True]
) -> tuple[Tensor, _Gradients]: ...
def mutual_information_recursion(
    px: Tensor, py: Tensor, boundary: Tensor | None = None, return_grad: bool = False
) -> Tensor | tuple[Tensor, _Gradients]:
    """Total log-probability of each utterance's lattice.

    Args:
        px: (N, S, T+1) regular or (N, S, T) modified, float32 or float64: log-probability of
            emitting symbol s from node (s, t), which leads to (s+1, t), or (s+1, t+1) if modified.
        py: (N, S+1, T), same type: log-probability of blank from (s, t) to (s, t+1).
        boundary: (N, 4) int64 rows [s_begin, t_begin, s_end, t_end]; None: [0, 0, S, T].
        return_grad: also return the occupation probabilities.

    Returns:
        scores (N,), natural logs, not negated; with `return_grad` the tuple
        (scores, (px_grad, py_grad)): the derivatives of scores.sum(), detached, in the shapes of
        px and py, zero outside the boundary and where the score is not finite.

    Raises:
        UserError: shapes, types or boundary do not fit.

    Source: k2, k2/python/k2/mutual_information.py.
    """
    check_lattice(px, py)
    boundary = check_boundary(
        boundary, num_utterances=px.size(0), num_symbols=px.size(1), num_frames=py.size(2)
    )
    if boundary is None:
        boundary = whole_lattice(px.size(0), px.size(1), py.size(2))
    scores, px_grad, py_grad = _Recursion.apply(px, py, boundary)  # type: ignore[no-untyped-call]
    return (scores, (px_grad, py_grad)) if return_grad else scores


def joint_mutual_information_recursion(
    px: Sequence[Tensor], py: Sequence[Tensor], boundary: Tensor | None = None
) -> Tensor:
    """Share of each of several score sources in the total log-probability of their sum.

    Args:
        px: M tensors like `px` of `mutual_information_recursion`; their sum is the lattice.
        py: M tensors like `py`.
        boundary: (N, 4) int64 or None.

    Returns:
        (M, N): the contribution of each source. Columns add up to the total log-probability of
        the summed lattice; row 0 carries what the expected scores leave over (the entropy).

    Raises:
        UserError: no sources, or shapes, types or boundary do not fit.

    Source: k2, k2/python/k2/mutual_information.py.
    """
    if len(px) != len(py) or not px:
        raise UserError(f"px and py must be equally many, at least 1: got {len(px)} and {len(py)}")
    with torch.no_grad():
        total_scores, (px_grad, py_grad) = mutual_information_recursion(
            torch.stack(tuple(px)).sum(dim=0),
            torch.stack(tuple(py)).sum(dim=0),
            boundary,
            return_grad=True,
        )
    # The lowest finite value stands in for -inf: an arc that no path takes counts 0, not nan.
    lowest = torch.finfo(px_grad.dtype).min
    shares = torch.stack(
        [
            (px_grad * x.clamp(min=lowest)).sum(dim=(1, 2))
            + (py_grad * y.clamp(min=lowest)).sum(dim=(1, 2))
            for x, y in zip(px, py, strict=True)
        ]
    )  # (M, N)
    entropy = total_scores - shares.detach().sum(dim=0)
    return torch.cat([shares[:1] + entropy, shares[1:]])


def whole_lattice(num_utterances: int, num_symbols: int, num_frames: int) -> Tensor:
    """The boundary [0, 0, S, T] of utterances without padding, (N, 4)."""
    return torch.tensor([[0, 0, num_symbols, num_frames]]).expand(num_utterances, 4)


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, px: Tensor, py: Tensor, boundary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores, px_grad, py_grad = lattice_forward_backward(px, py, boundary)
        ctx.mark_non_differentiable(px_grad, py_grad)
        ctx.save_for_backward(px_grad, py_grad)
        return scores, px_grad, py_grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scores_grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        px_grad, py_grad = ctx.saved_tensors
        weight = scores_grad[:, None, None]
        return weight * px_grad, weight * py_grad, None
