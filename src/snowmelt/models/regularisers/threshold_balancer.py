"""How does the LSTM transducer keep a channel's signs and sizes in bounds? The older balancer.

It corrects the size of a channel with full strength as soon as a limit is passed, where the
Zipformer's `ActivationBalancer` grows stronger with the distance; it acts with one probability
throughout, and remembers nothing.

Invariant: the forward direction is the identity; only the gradient changes, and only in training.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/scaling.py, ActivationBalancer.
"""

import random

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.balancer import balance_gradient, channel_statistics
from snowmelt.models.regularisers.common import acts

__all__ = ["ThresholdBalancer"]


class ThresholdBalancer(nn.Module):
    """Identity whose gradient pushes each channel's sign balance and size back into bounds.

    Args:
        channel_dim: which axis of the input holds the channels.
        min_positive, max_positive: wanted range of the share of values above 0, per channel.
        min_abs, max_abs: wanted range of the mean absolute value, per channel.
        max_factor: largest mean change relative to the gradient, per call.
        balance_prob: how often it acts, then with max_factor / balance_prob.

    Statistics are taken over all other axes, padding included, as the original does.
    """

    def __init__(
        self,
        channel_dim: int,
        min_positive: float = 0.05,
        max_positive: float = 0.95,
        min_abs: float = 0.2,
        max_abs: float = 100.0,
        *,
        max_factor: float = 0.01,
        balance_prob: float = 0.25,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.min_positive = min_positive
        self.max_positive = max_positive
        self.min_abs = min_abs
        self.max_abs = max_abs
        self.max_factor = max_factor
        self.balance_prob = balance_prob

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x``."""
        return self._training_forward(x) if self.training else x

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if not acts(self, x) or random.random() >= self.balance_prob:
            return x
        factor = self.max_factor / self.balance_prob
        with torch.no_grad():
            mean_abs, share = channel_statistics(x, self.channel_dim)
            sign = torch.zeros_like(share)
            if self.min_positive > 0.0:
                sign += (self.min_positive - share).relu() * (factor / self.min_positive)
            if self.max_positive < 1.0:
                sign -= (share - self.max_positive).relu() * (factor / (1.0 - self.max_positive))
            is_small = (mean_abs < self.min_abs).to(sign.dtype)
            is_large = (mean_abs > self.max_abs).to(sign.dtype)
            scale = (is_small - is_large) * factor
        return balance_gradient(x, self.channel_dim, sign + scale, sign - scale)
