"""How are single values kept in a range while training?

Invariant: a limit is either an ordinary clamp that is left out now and then, or a penalty that is
seen by the gradient alone.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

import random
from typing import Any

import torch
from torch import Tensor

from snowmelt.models.regularisers.common import apply_function

__all__ = ["clamp_sometimes", "penalize_abs_values_gt", "random_clamp"]


def clamp_sometimes(x: Tensor, min_value: float, max_value: float, *, prob: float) -> Tensor:
    """``x`` clamped to the range with probability ``prob``, else unchanged.

    The gradient of a clamped value outside the range is 0; the unclamped calls let it come back.
    """
    return x.clamp(min_value, max_value) if random.random() < prob else x


class _PenaltyFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, penalty: float) -> Tensor:
        ctx.save_for_backward((x > limit).to(torch.int8) - (x < -limit).to(torch.int8))
        ctx.penalty = penalty
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        (excess_sign,) = ctx.saved_tensors
        return torch.add(grad, excess_sign.to(grad.dtype), alpha=ctx.penalty), None, None


@torch.jit.unused
def penalize_abs_values_gt(x: Tensor, limit: float, penalty: float) -> Tensor:
    """Identity, as if penalty * sum(relu(|x| - limit)) were added to the loss.

    The penalty does not follow the loss scale of mixed precision, as in the original.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x
    if x.device.type == "cpu":
        # A cheap look: nearly always nothing is beyond the limit. For a GPU one would have to wait.
        smallest, largest = torch.aminmax(x.detach())
        if float(largest) <= limit and float(smallest) >= -limit:
            return x
    return apply_function(_PenaltyFunction, x, limit, penalty)


class _RandomClampFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        min_value: float | None,
        max_value: float | None,
        prob: float,
        reflect: float,
    ) -> Tensor:
        clamped = x.clamp(min_value, max_value)
        chosen = torch.rand_like(x) < prob
        y = torch.where(chosen, clamped, x)
        ctx.save_for_backward(y == x)
        ctx.reflect = reflect
        return y if reflect == 0.0 else y * (1.0 + reflect) - x * reflect

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grad_outputs
        (is_same,) = ctx.saved_tensors
        grad_x = grad * is_same
        if ctx.reflect != 0.0:
            grad_x = grad_x * (1.0 + ctx.reflect) - grad * ctx.reflect
        return grad_x, None, None, None, None


def random_clamp(
    x: Tensor,
    min: float | None = None,
    max: float | None = None,
    prob: float = 0.5,
    reflect: float = 0.0,
) -> Tensor:
    """Each element is clamped to [min, max] with probability ``prob``.

    Args:
        x: any shape.
        min, max: bounds; None = no bound on that side.
        prob: per element.
        reflect: r mirrors the clamped part back by r times its excess: y(1+r) - x r.
    """
    return apply_function(_RandomClampFunction, x, min, max, prob, reflect)
