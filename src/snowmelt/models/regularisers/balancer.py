"""How are a channel's signs and sizes kept in bounds?

`ActivationBalancer` is the Zipformer's; what it shares with the older `ThresholdBalancer` are the
statistics of a channel and the change of the gradient.

Invariant: the forward direction is the identity; only the gradient changes, and only in training.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.common import acts, apply_function, cpu_kernels_usable, widened

__all__ = ["ActivationBalancer", "balance_gradient", "channel_statistics"]


class _BalancerFunction(torch.autograd.Function):
    """Identity; grad_x = g - |g| * (factor_above where x > 0, else factor_below)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, channel_dim: int, factor_above: Tensor, factor_below: Tensor
    ) -> Tensor:
        # x itself, not x > 0: the activation that follows keeps it anyway.
        ctx.save_for_backward(x, factor_above, factor_below)
        ctx.channel_dim = channel_dim
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grad_outputs
        x, factor_above, factor_below = ctx.saved_tensors
        if cpu_kernels_usable(x):
            from snowmelt.models import cpu_kernels

            grad_x = cpu_kernels.balancer_gradient(
                x, grad, ctx.channel_dim, factor_above, factor_below
            )
            return grad_x, None, None, None
        shape = [1] * x.dim()
        shape[ctx.channel_dim] = -1
        factor = torch.where(x > 0, factor_above.view(shape), factor_below.view(shape))
        return torch.addcmul(grad, grad.abs(), factor.to(grad.dtype), value=-1.0), None, None, None


def balance_gradient(
    x: Tensor, channel_dim: int, factor_above: Tensor, factor_below: Tensor
) -> Tensor:
    """``x`` whose gradient g becomes g - |g| * (factor_above where x > 0, else factor_below).

    Args:
        x: any shape, with C channels at ``channel_dim``.
        channel_dim: which axis holds the channels.
        factor_above, factor_below: (C,).
    """
    # Asking a GPU would make Python wait for it.
    if x.device.type == "cpu" and not (factor_above.any() or factor_below.any()):
        return x
    return apply_function(_BalancerFunction, x, channel_dim, factor_above, factor_below)


def channel_statistics(x: Tensor, channel_dim: int) -> tuple[Tensor, Tensor]:
    """Mean absolute value and share of positive values of each channel, (C,) each."""
    if cpu_kernels_usable(x):
        from snowmelt.models import cpu_kernels

        return cpu_kernels.channel_statistics(x, channel_dim)
    other_dims = [d for d in range(x.dim()) if d != channel_dim % x.dim()]
    x = widened(x)
    return x.abs().mean(dim=other_dims), (x > 0).to(x.dtype).mean(dim=other_dims)


class ActivationBalancer(nn.Module):
    """Identity whose gradient pushes each channel's sign balance and size back into bounds.

    Args:
        num_channels: size of the channel axis.
        channel_dim: which axis of the input holds the channels.
        min_positive, max_positive: wanted range of the share of values above 0, per channel.
        min_abs, max_abs: wanted range of the mean absolute value, per channel.
        min_prob: it acts with probability max(min_prob, 0.5 ** (1 + calls / 4000)).

    The buffer ``count`` () int64 is the number of calls, exact whenever a state dict is made or
    loaded. Statistics are taken over all other axes, padding included, as the original does.
    """

    count: Tensor

    def __init__(
        self,
        num_channels: int,
        channel_dim: int,
        min_positive: float = 0.05,
        max_positive: float = 0.95,
        min_abs: float = 0.2,
        max_abs: float = 100.0,
        min_prob: float = 0.1,
        *,
        max_factor: float = 0.04,
        sign_gain_factor: float = 0.01,
        scale_gain_factor: float = 0.02,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.channel_dim = channel_dim
        self.min_positive = min_positive
        self.max_positive = max_positive
        self.min_abs = min_abs
        self.max_abs = max_abs
        self.min_prob = min_prob
        self.max_factor = max_factor
        self.sign_gain_factor = sign_gain_factor
        self.scale_gain_factor = scale_gain_factor
        # Counting in Python keeps the GPU out of it; the buffer is written when it is read.
        self.num_calls = 0
        self.schedule_scale = 1.0
        self.register_buffer("count", torch.tensor(0, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x``, any shape with ``num_channels`` at ``channel_dim``."""
        return self._training_forward(x) if self.training else x

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if not acts(self, x):
            return x
        prob = self.current_prob()
        self.num_calls += 1
        if random.random() >= prob:
            return x
        return self._balanced(x, prob)

    def current_prob(self) -> float:
        """Probability that the next call acts."""
        num_calls = self.num_calls / self.schedule_scale
        return max(self.min_prob, math.pow(0.5, 1.0 + num_calls / 4000.0))

    def _balanced(self, x: Tensor, prob: float) -> Tensor:
        assert x.size(self.channel_dim) == self.num_channels, (x.shape, self.channel_dim)
        with torch.no_grad():
            mean_abs, share = channel_statistics(x, self.channel_dim)
            half_scale = 0.5 * self._scale_factor(mean_abs, prob)
            sign = self._sign_factor(share, prob)
        return balance_gradient(x, self.channel_dim, sign + half_scale, sign - half_scale)

    def _scale_factor(self, mean_abs: Tensor, prob: float) -> Tensor:
        """Positive where a channel is too small, negative where it is too large."""
        gain = self.scale_gain_factor / prob
        too_large = (mean_abs - self.max_abs) * (gain / self.max_abs)
        factor = -too_large.clamp(0.0, self.max_factor)
        if self.min_abs > 0.0:
            too_small = (self.min_abs - mean_abs) * (gain / self.min_abs)
            factor = factor + too_small.clamp(0.0, self.max_factor)
        return factor

    def _sign_factor(self, share: Tensor, prob: float) -> Tensor:
        """Positive where a channel has too few positive values, negative where too many."""
        gain = self.sign_gain_factor / prob
        factor = torch.zeros_like(share)
        if self.min_positive > 0.0:
            too_few = (self.min_positive - share) * (gain / self.min_positive)
            factor = factor + too_few.clamp(0.0, self.max_factor)
        if self.max_positive < 1.0:
            too_many = (share - self.max_positive) * (gain / (1.0 - self.max_positive))
            factor = factor - too_many.clamp(0.0, self.max_factor)
        return factor

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.count.fill_(self.num_calls)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # The original forgets its count on resuming and starts again at probability 0.5.
        self.num_calls = int(self.count)
