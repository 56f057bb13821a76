"""How is a layer kept from using only a few directions of its channel space?

Invariant: the forward direction is the identity; only the gradient changes, and only in training.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

import random
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.common import acts, apply_function, widened

__all__ = ["Whiten", "whitening_metric"]


def _grouped_covariance(x: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centred frames (G, M, c), their covariances (G, c, c) times M, mean diagonal, metric."""
    frames = x.reshape(-1, num_groups, x.size(-1) // num_groups).transpose(0, 1)  # (G, M, c)
    frames = frames - frames.mean(dim=1, keepdim=True)
    covariance = torch.matmul(frames.transpose(1, 2), frames)  # (G, c, c)
    mean_diag = covariance.diagonal(dim1=1, dim2=2).mean()
    mean_square = (covariance**2).sum() / x.size(-1)
    return frames, covariance, mean_diag, mean_square / (mean_diag**2 + 1.0e-20)


def whitening_metric(x: Tensor, num_groups: int) -> Tensor:
    """How far the channel covariance is from a multiple of the identity.

    Args:
        x: (..., C); all leading axes count as frames.
        num_groups: G; the C channels are G separate groups of C / G neighbours.

    Returns:
        () in x's dtype (float32 for half precision); 1.0 at perfectly white, larger otherwise.
    """
    return _grouped_covariance(widened(x), num_groups)[3]


class _WhitenFunction(torch.autograd.Function):
    """Identity; adds to the gradient a way down of the metric, if that is above the limit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_groups: int, limit: float, grad_scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.num_groups, ctx.limit, ctx.grad_scale = num_groups, limit, grad_scale
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grad_outputs
        (x,) = ctx.saved_tensors
        # Autocast off: in half precision the covariance may overflow.
        with torch.autocast(device_type=x.device.type, enabled=False):
            frames, covariance, mean_diag, metric = _grouped_covariance(widened(x), ctx.num_groups)
            # d metric / d frames in closed form; its mean over frames is 0 as that of `frames`.
            covariance.diagonal(dim1=1, dim2=2).sub_(metric * mean_diag)
            gain = 4.0 / (x.size(-1) * (mean_diag**2 + 1.0e-20))
            penalty = torch.matmul(frames, covariance * gain)  # (G, M, c)
            penalty = penalty.transpose(0, 1).reshape(x.shape)
            wide_grad = widened(grad)
            scale = ctx.grad_scale * wide_grad.norm() / (penalty.norm() + 1.0e-20)
            scale = scale * (metric > ctx.limit)
            return torch.addcmul(wide_grad, penalty, scale).to(grad.dtype), None, None, None


class Whiten(nn.Module):
    """Identity whose gradient keeps the channel covariance from collapsing to few directions.

    Args:
        num_groups: channels are whitened in this many separate groups.
        whitening_limit: the metric above which it acts (1.0 would be white).
        prob: how often it acts: (while below the limit, while above), or one number for both.
        grad_scale: norm of the added gradient relative to the gradient itself.

    ``prob`` (float attribute) is the current probability; it is kept by ``regulariser_state``.
    """

    def __init__(
        self,
        num_groups: int,
        whitening_limit: float,
        prob: float | tuple[float, float],
        grad_scale: float,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.whitening_limit = whitening_limit
        self.min_prob, self.max_prob = (prob, prob) if isinstance(prob, float | int) else prob
        self.prob = float(self.max_prob)
        self.grad_scale = grad_scale

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` (..., C)."""
        return self._training_forward(x) if self.training else x

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if not acts(self, x) or self.grad_scale == 0.0 or random.random() > self.prob:
            return x
        if self.min_prob != self.max_prob and random.random() < 0.25:
            with torch.no_grad(), torch.autocast(device_type=x.device.type, enabled=False):
                is_above = bool(whitening_metric(x, self.num_groups) > self.whitening_limit)
            self.prob = self.max_prob if is_above else self.min_prob
        return apply_function(
            _WhitenFunction, x, self.num_groups, self.whitening_limit, self.grad_scale
        )
