"""How are activations kept at a steady size from layer to layer?

Invariant: in evaluation mode this is one formula, and eps a constant.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.common import apply_function, widened
from snowmelt.models.regularisers.limits import clamp_sometimes

__all__ = ["BasicNorm"]


class _BasicNormFunction(torch.autograd.Function):
    """x / sqrt(mean(x^2) + e): keeps x and one number per frame."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, e: Tensor, channel_dim: int) -> Tensor:
        wide = widened(x)
        scale = (wide.square().mean(dim=channel_dim, keepdim=True) + e).rsqrt()
        ctx.save_for_backward(x, scale)
        ctx.channel_dim = channel_dim
        return (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grad_outputs
        x, scale = ctx.saved_tensors
        wide, wide_grad = widened(x), widened(grad)
        cubed = scale**3 * (wide * wide_grad).sum(dim=ctx.channel_dim, keepdim=True)
        grad_x = torch.addcmul(wide_grad * scale, wide, cubed / -x.size(ctx.channel_dim))
        return grad_x.to(x.dtype), -0.5 * cubed.sum(), None


class BasicNorm(nn.Module):
    """y = x / sqrt(mean over channels of x^2 + exp(eps)); no mean subtraction, no gain.

    Args:
        num_channels: size of the channel axis.
        channel_dim: which axis holds the channels.
        eps: starting value; the parameter ``eps`` () is its logarithm.
        learn_eps: False makes ``eps`` a buffer.
        eps_min, eps_max: in training the logarithm is clamped here with probability
        clamp_prob: this; 0: never.
    """

    eps: Tensor

    def __init__(
        self,
        num_channels: int,
        channel_dim: int = -1,
        eps: float = 0.25,
        learn_eps: bool = True,
        eps_min: float = -3.0,
        eps_max: float = 3.0,
        clamp_prob: float = 0.25,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.channel_dim = channel_dim
        self.eps_min = eps_min
        self.eps_max = eps_max
        self.clamp_prob = clamp_prob
        log_eps = torch.tensor(eps).log()
        if learn_eps:
            self.eps = nn.Parameter(log_eps)
        else:
            self.register_buffer("eps", log_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised ``x``, same shape and dtype."""
        if self.training:
            return self._training_forward(x)
        power = x.square().mean(dim=self.channel_dim, keepdim=True)
        return x * (power + self.eps.exp()).rsqrt()

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        eps = self.eps
        if self.clamp_prob > 0.0 and torch.is_grad_enabled():
            eps = clamp_sometimes(eps, self.eps_min, self.eps_max, prob=self.clamp_prob)
        return apply_function(_BasicNormFunction, x, eps.exp(), self.channel_dim)
