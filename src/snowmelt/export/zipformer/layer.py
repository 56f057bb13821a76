"""What does one layer do when it only recognises, and what does it keep for the next window?

Invariant: without lengths no gather is in the graph: the caches are plain slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.export.layers import ConstantNorm, Swish
from snowmelt.export.zipformer.attention import InferenceAttention
from snowmelt.export.zipformer.caches import last_columns, last_frames
from snowmelt.models.zipformer.convolution import ConvolutionModule
from snowmelt.models.zipformer.layer import FeedforwardModule, PoolingModule, ZipformerEncoderLayer

__all__ = ["InferenceLayer"]


class InferenceLayer(nn.Module):
    """One layer: attention twice with the same weights, convolutions, feed-forward, bypass."""

    def __init__(self, layer: ZipformerEncoderLayer) -> None:
        super().__init__()
        self.bypass_scale = layer.bypass_scale
        self.self_attn = InferenceAttention(layer.self_attn)
        self.pooling = _Pooling(layer.pooling)
        self.feed_forward1 = _FeedForward(layer.feed_forward1)
        self.feed_forward2 = _FeedForward(layer.feed_forward2)
        self.feed_forward3 = _FeedForward(layer.feed_forward3)
        self.conv_module1 = _Convolution(layer.conv_module1)
        self.conv_module2 = _Convolution(layer.conv_module2)
        self.norm_final = ConstantNorm(layer.norm_final)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        forbidden: Tensor,
        seen: Tensor,
        count: Tensor,
        lens: Tensor | None,
        cache: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """(T, N, C) and the new cache: average, key, value, value2, conv1, conv2."""
        src = x
        x = x + self.feed_forward1(x)
        mean = _running_mean(x, cache[0], seen, count)
        x = x + self.pooling(mean)
        y, weights, key, value = self.self_attn(x, positions, forbidden, cache[1], cache[2])
        x = x + y
        y, conv1 = self.conv_module1(x, cache[4])
        x = x + y
        x = x + self.feed_forward2(x)
        y, value2 = self.self_attn.again(x, weights, cache[3])
        x = x + y
        y, conv2 = self.conv_module2(x, cache[5])
        x = x + y
        x = self.norm_final(x + self.feed_forward3(x))
        if lens is None:
            average = mean[int(mean.size(0)) - 1]
        else:
            average = last_frames(torch.cat([cache[0].unsqueeze(0), mean]), 1, lens).squeeze(0)
        kept = [
            average,
            last_frames(key, int(cache[1].size(0)), lens),
            last_frames(value, int(cache[2].size(0)), lens),
            last_frames(value2, int(cache[3].size(0)), lens),
            last_columns(conv1, int(cache[4].size(2)), lens),
            last_columns(conv2, int(cache[5].size(2)), lens),
        ]
        return src + (x - src) * self.bypass_scale, kept


class _FeedForward(nn.Module):
    def __init__(self, feed_forward: FeedforwardModule) -> None:
        super().__init__()
        self.in_proj = feed_forward.in_proj
        self.activation = Swish()
        self.out_proj = feed_forward.out_proj

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.activation(self.in_proj(x)))
        return out


class _Pooling(nn.Module):
    def __init__(self, pooling: PoolingModule) -> None:
        super().__init__()
        self.proj = pooling.proj

    def forward(self, mean: Tensor) -> Tensor:
        out: Tensor = self.proj(mean)
        return out


class _Convolution(nn.Module):
    def __init__(self, convolution: ConvolutionModule) -> None:
        super().__init__()
        self.pointwise_conv1 = convolution.pointwise_conv1
        self.depthwise_conv = convolution.depthwise_conv
        self.activation = Swish()
        self.pointwise_conv2 = convolution.pointwise_conv2

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, C), and the cache (N, C, K - 1) with the new frames behind it."""
        # Matrix products in place of pointwise convolutions: they can be quantised.
        x = F.linear(x, self.pointwise_conv1.weight.squeeze(-1), self.pointwise_conv1.bias)
        x = F.glu(x, dim=-1).permute(1, 2, 0)
        frames = torch.cat([cache, x], dim=2)
        x = self.activation(self._over_time(frames)).permute(2, 0, 1)
        x = F.linear(x, self.pointwise_conv2.weight.squeeze(-1), self.pointwise_conv2.bias)
        return x, frames

    def _over_time(self, frames: Tensor) -> Tensor:
        """(N, C, K - 1 + T) to (N, C, T)."""
        conv = self.depthwise_conv
        # With a second axis of one: ONNX Runtime has fast kernels for images only. Without them it
        # takes 10 to 60 times as long.
        image = F.conv2d(
            frames.unsqueeze(2), conv.weight.unsqueeze(2), conv.bias, groups=conv.weight.size(0)
        )
        return image.squeeze(2)


def _running_mean(x: Tensor, average: Tensor, seen: Tensor, count: Tensor) -> Tensor:
    """(T, N, C) mean of all frames up to each, `seen` of which were before and had `average`."""
    if x.dtype == count.dtype:
        return (x.cumsum(0) + average * seen) / count
    wide = (x.to(count.dtype).cumsum(0) + average.to(count.dtype) * seen) / count
    return wide.to(x.dtype)
