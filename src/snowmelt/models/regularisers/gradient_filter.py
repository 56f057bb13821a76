"""How is one wild utterance kept from spoiling the step of an LSTM's weights?

Invariant: the forward direction is the identity; utterances keep the directions of their gradients,
only their sizes change, and the weights' gradients keep theirs.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/scaling.py, GradientFilter.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from snowmelt.models.regularisers.common import widened

__all__ = ["filter_gradients"]

# Keeps gradients from being divided by zero where more than half of the utterances have none.
_TINY: Final = 1.0e-20


class _FilterFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, threshold: float, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.threshold = threshold
        return x, *weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad, *weight_grads = grad_outputs
        # In half precision the tiny number would be 0.
        wide = widened(grad)
        norms = wide.square().mean(dim=(0, 2)).sqrt()  # (N,)
        limit = ctx.threshold * norms.median()
        # At least 1, but for rounding and where all is 0.
        ratios = ((limit + norms) / (limit + _TINY)).clamp(min=1.0)
        wide = wide / ratios[:, None]
        weight_factor = 1.0 / ratios.mean()
        return None, wide.to(grad.dtype), *(g * weight_factor.to(g.dtype) for g in weight_grads)


def filter_gradients(
    threshold: float, x: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Identity whose gradient is damped softly where an utterance's is far above the others'.

    With n_b the root mean square of utterance b's gradient, m the median of these (the lower one of
    two) and r_b = 1 + n_b / (threshold * m): the gradient of x is divided by r_b, that of every
    weight by the mean of r_b. An ordinary utterance is multiplied by about
    threshold / (threshold + 1). Statistics include padding, as the original's do.

    Args:
        threshold: a gradient of so many medians is halved.
        x: (T, N, C) input of an LSTM.
        weights: all weights and biases that meet x there.

    Returns:
        x and the weights.
    """
    outputs: tuple[Tensor, ...] = _FilterFunction.apply(  # type: ignore[no-untyped-call]
        threshold, x, *weights
    )
    return outputs[0], list(outputs[1:])
