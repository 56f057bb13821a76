"""Scaled layers are plain layers with smaller weights."""

import torch
from torch import nn

from snowmelt.models.regularisers import scaled_conv1d, scaled_linear


def test_scaled_linear() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(50, 40)
    torch.manual_seed(0)
    scaled = scaled_linear(50, 40, initial_scale=0.05)
    assert type(scaled) is nn.Linear
    torch.testing.assert_close(scaled.weight, plain.weight * 0.05)
    assert 0.0 < float(scaled.bias.detach().abs().max()) <= 0.005
    assert scaled_linear(3, 4, bias=False).bias is None


def test_scaled_conv1d() -> None:
    torch.manual_seed(0)
    plain = nn.Conv1d(8, 4, 3, groups=2, padding=1)
    torch.manual_seed(0)
    scaled = scaled_conv1d(8, 4, 3, groups=2, padding=1, initial_scale=0.5)
    assert type(scaled) is nn.Conv1d
    torch.testing.assert_close(scaled.weight, plain.weight * 0.5)
    assert scaled.bias is not None and float(scaled.bias.detach().abs().max()) <= 0.05
    assert scaled(torch.zeros(1, 8, 5)).shape == (1, 4, 5)
