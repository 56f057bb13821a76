"""With which weights do scaled layers start?

Invariant: they are plain nn.Linear and nn.Conv1d; only their initial values differ.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/scaling.py.
"""

import torch
from torch import nn

__all__ = ["scaled_conv1d", "scaled_linear"]


def scaled_linear(
    in_features: int, out_features: int, *, bias: bool = True, initial_scale: float = 1.0
) -> nn.Linear:
    """nn.Linear whose default weights are multiplied by ``initial_scale``; bias U(±0.1 scale)."""
    linear = nn.Linear(in_features, out_features, bias=bias)
    _rescale(linear, initial_scale)
    return linear


def scaled_conv1d(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = True,
    initial_scale: float = 1.0,
) -> nn.Conv1d:
    """nn.Conv1d whose default weights are multiplied by ``initial_scale``; bias U(±0.1 scale)."""
    conv = nn.Conv1d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=bias,
    )
    _rescale(conv, initial_scale)
    return conv


def _rescale(layer: nn.Linear | nn.Conv1d, initial_scale: float) -> None:
    with torch.no_grad():
        layer.weight.mul_(initial_scale)
        if layer.bias is not None:
            nn.init.uniform_(layer.bias, -0.1 * initial_scale, 0.1 * initial_scale)
