"""Which layers learn the size of their weights apart from their direction?

A scaled layer has a scalar s beside every weight W and stands for W * exp(s). A small change of s
changes all of W in proportion, which lets the LSTM transducer's optimiser set sizes quickly.

Invariants: parameter names, their order and their initial values are the original's. The product is
made once a call; `fold_scales` makes it once for all, when training is over. Not to be mixed up
with `regularisers.scaled`: those are plain layers with other initial values.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/scaling.py.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ScaledConv1d",
    "ScaledConv2d",
    "ScaledEmbedding",
    "ScaledLinear",
    "fold_scales",
    "initial_weight_scale",
    "initialise_weight",
]

# Standard deviation of a fresh weight before its scale, at the usual speed of learning.
_INITIAL_STD: Final = 0.1


class ScaledLinear(nn.Linear):
    """nn.Linear with `weight_scale` () and `bias_scale` ().

    Args:
        in_features, out_features: channels.
        bias: whether there is one; it starts at 0.
        initial_scale: size of the fresh layer's output relative to its input.
        initial_speed: below 1 the weight is larger and its scale smaller: it learns more slowly.
    """

    weight_scale: nn.Parameter
    bias_scale: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        initial_scale: float = 1.0,
        initial_speed: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        _add_scales(self, in_features, initial_scale, initial_speed)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        weight, bias = self.scaled_parameters()
        return F.linear(x, weight, bias)

    def scaled_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the plain layer of the same function, differentiable."""
        weight = self.weight * self.weight_scale.exp()
        return weight, _scaled_bias(self.bias, self.bias_scale)

    def folded(self) -> nn.Linear:
        """The plain layer of the same function."""
        plain = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        return cast(nn.Linear, _copy_folded(self, plain))


class ScaledConv1d(nn.Conv1d):
    """nn.Conv1d with `weight_scale` () and `bias_scale` (); arguments as in nn.Conv1d."""

    weight_scale: nn.Parameter
    bias_scale: nn.Parameter | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _add_scales(self, self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, T) -> (N, out_channels, T')."""
        weight = self.weight * self.weight_scale.exp()
        out: Tensor = self._conv_forward(x, weight, _scaled_bias(self.bias, self.bias_scale))
        return out

    def folded(self) -> nn.Conv1d:
        """The plain layer of the same function."""
        return cast(nn.Conv1d, _folded_convolution(self, nn.Conv1d))


class ScaledConv2d(nn.Conv2d):
    """nn.Conv2d with `weight_scale` () and `bias_scale` (); arguments as in nn.Conv2d."""

    weight_scale: nn.Parameter
    bias_scale: nn.Parameter | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _add_scales(self, self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, height, width) -> (N, out_channels, height', width')."""
        weight = self.weight * self.weight_scale.exp()
        out: Tensor = self._conv_forward(x, weight, _scaled_bias(self.bias, self.bias_scale))
        return out

    def folded(self) -> nn.Conv2d:
        """The plain layer of the same function."""
        return cast(nn.Conv2d, _folded_convolution(self, nn.Conv2d))


class ScaledEmbedding(nn.Module):
    """nn.Embedding with `scale` (), which stands before `weight` (rows, dim).

    Args:
        num_embeddings: rows.
        embedding_dim: channels.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0 / _INITIAL_STD).log())
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        nn.init.normal_(self.weight, std=_INITIAL_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., dim)."""
        return F.embedding(ids, self.weight) * self.scale.exp()

    def folded(self) -> nn.Embedding:
        """The plain layer of the same function."""
        weight = (self.weight * self.scale.exp()).detach()
        return cast(nn.Embedding, nn.Embedding.from_pretrained(weight, freeze=False))


@runtime_checkable
class _Foldable(Protocol):
    """A layer with scales that can become a plain one."""

    def folded(self) -> nn.Module: ...


def fold_scales(model: nn.Module) -> None:
    """Put a plain layer of the same function in the place of every scaled layer inside `model`.

    For inference: a scaled layer multiplies all its weights by their scale at every call, in
    streaming at every chunk. The state dict loses its scales; a model without any stays as it is.
    """
    for name, child in model.named_children():
        if isinstance(child, _Foldable):
            folded = child.folded().train(child.training)
            setattr(model, name, folded)
        else:
            fold_scales(child)


def initialise_weight(weight: Tensor, initial_speed: float = 1.0) -> None:
    """Draw a weight from U(-a, a), so that its standard deviation is 0.1 / initial_speed."""
    limit = math.sqrt(3.0) * _INITIAL_STD / initial_speed
    nn.init.uniform_(weight, -limit, limit)


def initial_weight_scale(
    fan_in: int, initial_scale: float = 1.0, initial_speed: float = 1.0
) -> Tensor:
    """() scale of a fresh weight: its standard deviation becomes initial_scale / sqrt(fan_in)."""
    std = _INITIAL_STD / initial_speed
    return torch.tensor(math.log(initial_scale * fan_in**-0.5 / std))


def _add_scales(
    layer: ScaledLinear | ScaledConv1d | ScaledConv2d,
    fan_in: int,
    initial_scale: float = 1.0,
    initial_speed: float = 1.0,
) -> None:
    initialise_weight(layer.weight, initial_speed)
    layer.weight_scale = nn.Parameter(initial_weight_scale(fan_in, initial_scale, initial_speed))
    layer.bias_scale = None
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
        layer.bias_scale = nn.Parameter(torch.tensor(math.log(initial_scale)))


def _scaled_bias(bias: Tensor | None, scale: Tensor | None) -> Tensor | None:
    if bias is None or scale is None:
        return None
    return bias * scale.exp()


def _folded_convolution(
    layer: ScaledConv1d | ScaledConv2d, kind: type[nn.Conv1d] | type[nn.Conv2d]
) -> nn.Module:
    def size(value: Sequence[int] | str) -> int:
        assert not isinstance(value, str) and len(set(value)) == 1, value
        return value[0]

    plain = nn.utils.skip_init(
        kind,
        layer.in_channels,
        layer.out_channels,
        size(layer.kernel_size),
        stride=size(layer.stride),
        padding=size(layer.padding),
        groups=layer.groups,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    return _copy_folded(layer, plain)


@torch.no_grad()
def _copy_folded(layer: ScaledLinear | ScaledConv1d | ScaledConv2d, plain: nn.Module) -> nn.Module:
    assert isinstance(plain, nn.Linear | nn.Conv1d | nn.Conv2d), type(plain)
    plain.weight.copy_(layer.weight * layer.weight_scale.exp())
    if layer.bias is not None and layer.bias_scale is not None:
        assert plain.bias is not None
        plain.bias.copy_(layer.bias * layer.bias_scale.exp())
    return plain
