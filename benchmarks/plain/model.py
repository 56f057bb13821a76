"""Which parts of a model in training are replaced by plain torch? See `benchmarks.plain`.

Invariant: replacements are set on objects and modules of this process; the package is not changed.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.optimizer import StackedScaledAdam
from snowmelt.models.regularisers import activation, balancer
from snowmelt.models.regularisers.activation import DoubleSwish, DoubleSwishDropout, Dropout
from snowmelt.models.regularisers.norm import BasicNorm
from snowmelt.models.zipformer import attention_math
from snowmelt.models.zipformer import encoder as zipformer_encoder
from snowmelt.models.zipformer.convolution import ConvolutionModule
from snowmelt.models.zipformer.packing import Packing
from snowmelt.models.zipformer.subsampling import Conv2dSubsampling
from snowmelt.models.zipformer.windows import (
    Windows,
    dense_windows,
    subsequent_chunk_mask,
)
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.train.resume import TrainState

__all__ = ["make_model_plain", "make_plain"]


def make_plain(state: TrainState) -> None:
    """Replace what is computed in another way than plain torch would."""
    make_model_plain(state)
    if isinstance(state.optimizer, ScaledAdam):
        parameters = list(state.objective.parameters())
        plain = StackedScaledAdam(parameters, lr=state.scheduler.get_lr()[0])
        _replace(state, "optimizer", plain)
        _replace(state.scheduler, "optimizer", plain)


def make_model_plain(state: TrainState) -> None:
    """The same without the optimiser, whose plain form does not clip: for runs that learn."""
    for module in (activation, balancer):
        _replace(module, "cpu_kernels_usable", lambda _: False)
    _replace(attention_math, "_trains_on_cpu", lambda *_: False)
    _replace(zipformer_encoder, "_packs_utterances", lambda _: False)
    _replace(zipformer_encoder, "chunk_windows", _masked_chunks)
    _replace(zipformer_encoder, "full_windows", _masked_utterances)
    forwards: dict[type[nn.Module], Callable[..., Tensor]] = {
        DoubleSwish: lambda _, x: _RoundedDoubleSwish.apply(x),
        DoubleSwishDropout: lambda self, x: F.dropout(
            _RoundedDoubleSwish.apply(x), self.prob, self.training
        ),
        Dropout: lambda self, x: F.dropout(x, self.prob, self.training),
        BasicNorm: _basic_norm,
        ConvolutionModule: _convolution_module,
        Conv2dSubsampling: _subsampling,
    }
    for part in state.objective.modules():
        if type(part) in forwards:
            _replace(part, "forward", forwards[type(part)].__get__(part))


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), (owner, name)
    setattr(owner, name, value)


def _masked_chunks(
    num_frames: int, chunk_size: int, num_left_chunks: int, x_lens: Tensor
) -> Windows:
    mask = ~subsequent_chunk_mask(num_frames, chunk_size, num_left_chunks)
    padding = torch.arange(num_frames) >= x_lens[:, None]
    return dense_windows(num_frames, mask, padding)


def _masked_utterances(num_frames: int, x_lens: Tensor) -> Windows:
    return dense_windows(num_frames, None, torch.arange(num_frames) >= x_lens[:, None])


class _RoundedDoubleSwish(torch.autograd.Function):
    """Keeps the derivative in 8 bits, rounded up or down at random, and no input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.detach().float()
        gate = torch.sigmoid(wide - 1.0)
        y = wide * gate
        derivative = y * (1 - gate) + gate
        # The derivative lies between -0.0438 and 1.2.
        floor, ceiling = -0.044, 1.2
        scaled = (derivative - floor) * (255.0 / (ceiling - floor)) + torch.rand_like(derivative)
        ctx.save_for_backward(scaled.to(torch.uint8))
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (bits,) = ctx.saved_tensors
        floor, ceiling = -0.044, 1.2
        derivative = bits.to(grad_outputs[0].dtype) * ((ceiling - floor) / 255.0) + floor
        return grad_outputs[0] * derivative


def _basic_norm(self: BasicNorm, x: Tensor) -> Tensor:
    power = x.square().mean(dim=self.channel_dim, keepdim=True)
    return x * (power + self.eps.exp()) ** -0.5


def _convolution_module(
    self: ConvolutionModule, x: Tensor, padding_mask: Tensor | None, packing: Packing | None
) -> Tensor:
    assert padding_mask is None and packing is None
    x = x.permute(1, 2, 0)  # (N, C, T)
    x = self.pointwise_conv1(x)
    x = F.glu(self.deriv_balancer1(x.transpose(1, 2)).transpose(1, 2), dim=1)
    x = self.depthwise_conv(F.pad(x, (self.kernel_size - 1, 0)))
    x = self.activation(self.deriv_balancer2(x.transpose(1, 2)).transpose(1, 2))
    return self.pointwise_conv2(x).permute(2, 0, 1)


def _subsampling(self: Conv2dSubsampling, x: Tensor) -> Tensor:
    x = self.conv(x.unsqueeze(1))  # (N, channels, T', bands)
    x = self.out(x.transpose(1, 2).flatten(start_dim=2))
    return self.dropout(x)
