"""Which nonlinearities does the Zipformer use, and what do they keep for the gradient?

Invariant: each keeps at most one tensor for backward, and its derivative is exact.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers.common import apply_function, cpu_kernels_usable, widened

__all__ = ["DoubleSwish", "DoubleSwishDropout", "Dropout", "double_swish", "softmax"]


class _DoubleSwishFunction(torch.autograd.Function):
    """x * sigmoid(x - 1), keeping only x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if cpu_kernels_usable(x):
            from snowmelt.models import cpu_kernels

            return cpu_kernels.double_swish(x)
        wide = widened(x)
        return (wide * (wide - 1.0).sigmoid_()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (grad,) = grad_outputs
        (x,) = ctx.saved_tensors
        if cpu_kernels_usable(x):
            from snowmelt.models import cpu_kernels

            return cpu_kernels.double_swish_gradient(x, grad)
        wide = widened(x)
        gate = (wide - 1.0).sigmoid_()
        derivative = torch.addcmul(gate, wide * gate, 1.0 - gate)
        return (grad * derivative).to(x.dtype)


def double_swish(x: Tensor) -> Tensor:
    """x * sigmoid(x - 1), elementwise."""
    return x * torch.sigmoid(x - 1.0)


class DoubleSwish(nn.Module):
    """``double_swish`` as a module; in training it keeps one tensor, and on the CPU is faster.

    The derivative is exact, where the original rounds it at random to 8 bits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns x * sigmoid(x - 1), same shape and dtype."""
        return self._training_forward(x) if self.training else double_swish(x)

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        return apply_function(_DoubleSwishFunction, x)


class _DropoutFunction(torch.autograd.Function):
    """Dropout on the CPU, keeping only the key of its random numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, prob: float, key: int) -> Tensor:
        from snowmelt.models import cpu_kernels

        ctx.prob, ctx.key = prob, key
        return cpu_kernels.apply_dropout(x, prob, key)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        from snowmelt.models import cpu_kernels

        (grad,) = grad_outputs
        return cpu_kernels.apply_dropout(grad, ctx.prob, ctx.key), None, None


class Dropout(nn.Module):
    """nn.Dropout, on the CPU about forty times faster; one draw a call from torch's generator.

    Args:
        prob: share of elements set to zero in training, the others are divided by 1 - prob.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with elements dropped, in evaluation ``x`` itself."""
        if not self.training or self.prob == 0.0:
            return x
        return self._training_forward(x)

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if not cpu_kernels_usable(x):
            return nn.functional.dropout(x, self.prob, training=True)
        key = int(torch.randint(2**63 - 1, ()))
        return apply_function(_DropoutFunction, x, self.prob, key)


class _DoubleSwishDropoutFunction(torch.autograd.Function):
    """Both in one pass over memory each way, keeping x and the key."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, prob: float, key: int) -> Tensor:
        from snowmelt.models import cpu_kernels

        ctx.save_for_backward(x)
        ctx.prob, ctx.key = prob, key
        return cpu_kernels.double_swish_dropout(x, prob, key)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        from snowmelt.models import cpu_kernels

        (grad,) = grad_outputs
        (x,) = ctx.saved_tensors
        grad_x = cpu_kernels.double_swish_dropout_gradient(x, grad, ctx.prob, ctx.key)
        return grad_x, None, None


class DoubleSwishDropout(nn.Module):
    """`DoubleSwish`, then `Dropout`, where training may do both at once.

    Args:
        prob: of the dropout.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations, in training with elements dropped."""
        return self._training_forward(x) if self.training else double_swish(x)

    @torch.jit.unused
    def _training_forward(self, x: Tensor) -> Tensor:
        if self.prob == 0.0:
            return apply_function(_DoubleSwishFunction, x)
        if not cpu_kernels_usable(x):
            y = apply_function(_DoubleSwishFunction, x)
            return nn.functional.dropout(y, self.prob, training=True)
        key = int(torch.randint(2**63 - 1, ()))
        return apply_function(_DoubleSwishDropoutFunction, x, self.prob, key)


class _SoftmaxFunction(torch.autograd.Function):
    """Softmax stored in the autocast dtype, its gradient computed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        y = x.softmax(dim, dtype=torch.float32).to(dtype)
        ctx.save_for_backward(y)
        ctx.dim, ctx.x_dtype = dim, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        (y,) = ctx.saved_tensors
        with torch.autocast(device_type=y.device.type, enabled=False):
            weighted = grad.float() * y.float()
            total = weighted.sum(dim=ctx.dim, keepdim=True)
            return (weighted - y.float() * total).to(ctx.x_dtype), None, None


def softmax(x: Tensor, dim: int) -> Tensor:
    """Softmax; under autocast the result has the autocast dtype and its gradient full precision."""
    if torch.jit.is_scripting() or not torch.is_autocast_enabled(x.device.type):  # type: ignore[attr-defined]
        return x.softmax(dim=dim)
    dtype = torch.get_autocast_dtype(x.device.type)
    return apply_function(_SoftmaxFunction, x, dim, dtype)
