"""How do the scores of a batch become its loss?

Invariant: nothing is divided by lengths.
"""

from typing import Literal

from torch import Tensor

from snowmelt.core.errors import UserError

__all__ = ["Reduction", "reduced"]

Reduction = Literal["none", "mean", "sum"]


def reduced(scores: Tensor, reduction: str) -> Tensor:
    """Minus the scores (N,): each (none), or their mean over the utterances, or their sum.

    Raises:
        UserError: an unknown reduction.
    """
    if reduction == "none":
        return -scores
    if reduction == "mean":
        return -scores.mean()
    if reduction == "sum":
        return -scores.sum()
    raise UserError(f"unknown reduction {reduction!r}", hint="choose none, mean or sum")
