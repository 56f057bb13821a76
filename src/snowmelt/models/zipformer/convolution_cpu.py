"""How are the gate and the depthwise convolution of a layer trained on the CPU?

Invariant: the same numbers as `glu` and `depthwise_conv` in torch, to rounding; input and output
have one type, float32 or bfloat16, and the sums are in float32.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowmelt.models.cpu_elements import as_array
from snowmelt.models.zipformer.convolution_kernels import (
    gated_convolution,
    gated_convolution_gradient,
    padded,
)
from snowmelt.models.zipformer.packing import Packing

__all__ = ["gated_conv"]


def gated_conv(x: Tensor, weight: Tensor, bias: Tensor, packing: Packing) -> Tensor:
    """Gate and causal depthwise convolution of utterances that stand one behind the other.

    Args:
        x: (M, 1, 2 C), channels and their gates.
        weight: (C, 1, K).
        bias: (C,).
        packing: where the utterances are.

    Returns:
        (M, 1, C).
    """
    y: Tensor = _GatedConvFunction.apply(x, weight, bias, packing)  # type: ignore[no-untyped-call]
    return y


class _GatedConvFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, packing: Packing) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.packing = packing
        num_channels, _, num_taps = weight.shape
        y = x.new_empty(x.size(0), 1, num_channels)
        wide_bias = bias.new_zeros(padded(num_channels, is_channels=True))
        wide_bias[:num_channels] = bias
        gated_convolution(
            as_array(x.squeeze(1)),
            np.array(packing.offsets),
            num_taps,
            _padded_taps(weight).numpy(),
            wide_bias.numpy(),
            as_array(y.squeeze(1)),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad_outputs[0].to(x.dtype).contiguous()
        num_channels, _, num_taps = weight.shape
        reversed_taps = _padded_taps(weight.flip(2))
        grad_x = torch.empty_like(x)
        grad_taps = torch.zeros_like(reversed_taps)
        grad_bias = weight.new_zeros(num_channels)
        gated_convolution_gradient(
            as_array(x.squeeze(1)),
            np.array(ctx.packing.offsets),
            num_taps,
            reversed_taps.numpy(),
            as_array(grad.squeeze(1)),
            as_array(grad_x.squeeze(1)),
            grad_taps.numpy(),
            grad_bias.numpy(),
        )
        grad_weight = grad_taps[:num_taps, :num_channels].t().unsqueeze(1)
        return grad_x, grad_weight, grad_bias, None


def _padded_taps(weight: Tensor) -> Tensor:
    """(C, 1, K) to (padded K, padded C), zeros beyond both."""
    num_channels, _, num_taps = weight.shape
    taps = weight.new_zeros(padded(num_taps), padded(num_channels, is_channels=True))
    taps[:num_taps, :num_channels] = weight.squeeze(1).t()
    return taps
