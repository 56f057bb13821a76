"""How do feature frames of 10 ms become encoder input of 40 ms?

Invariant: output frame t depends on feature frames 4t ... 4t + 8 alone; T' = (T - 5) // 4.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/lstm.py.
"""

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers import BasicNorm, DoubleSwish, ThresholdBalancer
from snowmelt.models.scaled_layers import ScaledConv2d, ScaledLinear

__all__ = ["Conv2dSubsampling"]


class Conv2dSubsampling(nn.Module):
    """Three 3x3 convolutions over (time, frequency) without padding, a linear layer, a norm.

    Args:
        in_channels: mel bins F, >= 9.
        out_channels: C.
        layer1_channels, layer2_channels, layer3_channels: channels of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layer1_channels: int = 8,
        layer2_channels: int = 32,
        layer3_channels: int = 128,
    ) -> None:
        super().__init__()
        assert in_channels >= 9, in_channels
        self.conv = nn.Sequential(
            ScaledConv2d(1, layer1_channels, 3),
            ThresholdBalancer(channel_dim=1),
            DoubleSwish(),
            ScaledConv2d(layer1_channels, layer2_channels, 3, stride=2),
            ThresholdBalancer(channel_dim=1),
            DoubleSwish(),
            ScaledConv2d(layer2_channels, layer3_channels, 3, stride=2),
            ThresholdBalancer(channel_dim=1),
            DoubleSwish(),
        )
        num_bands = ((in_channels - 3) // 2 - 1) // 2
        self.out = ScaledLinear(layer3_channels * num_bands, out_channels)
        self.out_norm = BasicNorm(out_channels, learn_eps=False, clamp_prob=0.0)
        self.out_balancer = ThresholdBalancer(-1, min_positive=0.45, max_positive=0.55)

    @torch.no_grad()
    def fold_normalisation(self, mean: float, std: float) -> None:
        """Change the first convolution so that it sees (x - mean) / std instead of x.

        Its scales stay as they are; see the Zipformer's `Conv2dSubsampling.fold_normalisation`.

        Args:
            mean: mean of the training features.
            std: their standard deviation, above 0.
        """
        first = self.conv[0]
        assert isinstance(first, ScaledConv2d) and std > 0, std
        assert first.bias is not None and first.bias_scale is not None
        first.weight /= std
        scale = (first.weight_scale - first.bias_scale).exp()
        first.bias -= mean * scale * first.weight.sum(dim=(1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Subsample by 4 in time.

        Args:
            x: (N, T, F) features, T >= 9.

        Returns:
            (N, (T - 5) // 4, C).
        """
        # In training with the channels last in memory: there the convolutions' products need no
        # transposition, and the one below is needed in either order.
        x = x.unsqueeze(-1).permute(0, 3, 1, 2) if self.training else x.unsqueeze(1)
        x = self.conv(x)  # (N, channels, T', bands)
        x = self.out(x.transpose(1, 2).flatten(start_dim=2))
        out: Tensor = self.out_balancer(self.out_norm(x))
        return out
