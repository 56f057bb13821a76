"""How is one direction kept from taking most of a layer's variance?

The recipes here do not use it; it stays for models of the original's family that do.

Invariant: the forward direction is the identity; only the gradient changes, and only in training.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

import random
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.common import acts, apply_function, widened

__all__ = ["MaxEig"]


class _MaxEigFunction(torch.autograd.Function):
    """Identity; adds to the gradient the way down of the variance's share along a direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, penalty: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(penalty)
        ctx.scale = scale
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        (penalty,) = ctx.saved_tensors
        wide = widened(grad)
        weight = ctx.scale * wide.norm() / (penalty.norm() + 1.0e-20)
        return torch.addcmul(wide, penalty, weight).to(grad.dtype), None, None


class MaxEig(nn.Module):
    """Identity whose gradient lowers the share of variance along the strongest direction.

    Args:
        num_channels: size of the channel axis.
        channel_dim: which axis of the input holds the channels.
        max_var_per_eig: the share of variance above which it acts.
        min_prob: how often it looks while the share is below.
        scale: norm of the added gradient relative to the gradient itself.

    The buffer ``max_eig_direction`` (C,) estimates the strongest direction by one step of power
    iteration per call; ``cur_prob`` (float attribute) is the probability of the next call.
    """

    max_eig_direction: Tensor

    def __init__(
        self,
        num_channels: int,
        channel_dim: int,
        max_var_per_eig: float = 0.2,
        min_prob: float = 0.01,
        scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.channel_dim = channel_dim
        self.max_var_per_eig = max_var_per_eig
        self.min_prob = min_prob
        self.scale = scale
        self.cur_prob = 1.0
        # Any start that no symmetry makes orthogonal to the answer will do.
        start = torch.arange(1.0, num_channels + 1.0)
        self.register_buffer("max_eig_direction", start / start.norm())

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x``, any shape with ``num_channels`` at ``channel_dim``."""
        return self._training_forward(x) if self.training else x

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if not acts(self, x) or random.random() > self.cur_prob:
            return x
        with torch.no_grad(), torch.autocast(device_type=x.device.type, enabled=False):
            frames = widened(x).transpose(self.channel_dim, -1)
            centred = frames - frames.mean(dim=list(range(frames.dim() - 1)))  # (..., C)
            coeffs = (centred @ self.max_eig_direction.to(centred.dtype)).unsqueeze(-1) + 1.0e-10
            direction = (centred * coeffs).flatten(end_dim=-2).sum(dim=0) / coeffs.square().sum()
            residual = centred - coeffs * direction
            variance = centred.square().mean() + 1.0e-20
            residual_share = residual.square().mean() / variance
            self._set_direction(direction)
            if 1.0 - float(residual_share) < self.max_var_per_eig:
                self.cur_prob = 0.75 * self.cur_prob + 0.25 * self.min_prob
                return x
            self.cur_prob = 1.0
            # d share / d x; the common factor matters only where it all vanishes
            penalty = (centred * residual_share - residual) * (2.0 / (x.numel() * variance))
            penalty = penalty.transpose(self.channel_dim, -1)
        return apply_function(_MaxEigFunction, x, penalty, self.scale)

    def _set_direction(self, direction: Tensor) -> None:
        # A tenth of the old one keeps it away from zero when x is all zeros.
        mixed = direction + 0.1 * self.max_eig_direction
        self.max_eig_direction.copy_(mixed / mixed.norm())
