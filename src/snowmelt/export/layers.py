"""What do both encoders need when they only recognise, and what does TorchScript understand of it?

Invariant: no randomness, no gradients, no Python that depends on values; parameters keep the names
they have in a checkpoint.
"""

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers import BasicNorm, DoubleSwish

__all__ = ["ConstantNorm", "Swish", "inference_convolutions", "valid_frames"]


class Swish(nn.Module):
    """x * sigmoid(x - 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(x - 1.0)


class ConstantNorm(nn.Module):
    """A `BasicNorm` whose epsilon is a constant.

    Args:
        norm: the trained one, over the last axis.
    """

    def __init__(self, norm: BasicNorm) -> None:
        super().__init__()
        assert norm.channel_dim == -1, norm.channel_dim
        self.epsilon = float(norm.eps.detach().exp())

    def forward(self, x: Tensor) -> Tensor:
        """(..., C)."""
        power = (x * x).mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(power + self.epsilon)


def inference_convolutions(conv: nn.Sequential) -> nn.Sequential:
    """The front end's convolutions, each in its place, without what only training needs."""
    return nn.Sequential(
        *(
            part
            if isinstance(part, nn.Conv2d)
            else Swish()
            if isinstance(part, DoubleSwish)
            else nn.Identity()
            for part in conv
        )
    )


def valid_frames(x_lens: Tensor, overlap: int, step: int) -> Tensor:
    """(N,) int64 frames that windows give: (x_lens - overlap) / step, rounded down, at least 0."""
    lens = (x_lens.to(torch.int64) - overlap).div(step, rounding_mode="floor")
    return lens.clamp(min=0)
