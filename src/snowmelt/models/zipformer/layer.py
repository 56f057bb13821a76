"""What is one layer of the Zipformer? Feed-forwards, attention, convolutions and a learned bypass.

Invariant: (T, N, C) in and out. What training skips is not computed.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers import (
    ActivationBalancer,
    BasicNorm,
    DoubleSwishDropout,
    Whiten,
    scaled_linear,
)
from snowmelt.models.zipformer.attention import RelPositionMultiheadAttention
from snowmelt.models.zipformer.caches import LayerCache, kept_frames, kept_mean
from snowmelt.models.zipformer.convolution import ConvolutionModule
from snowmelt.models.zipformer.packing import Packing, running_mean
from snowmelt.models.zipformer.randomness import dynamic_dropout, flip, min_bypass_scale
from snowmelt.models.zipformer.windows import Windows

__all__ = ["FeedforwardModule", "PoolingModule", "ZipformerEncoderLayer"]


class FeedforwardModule(nn.Module):
    """Linear, DoubleSwish, dropout, linear.

    Args:
        d_model: C.
        feedforward_dim: channels between.
        dropout: probability, after the activation, in training.
    """

    def __init__(self, d_model: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, feedforward_dim)
        self.balancer = ActivationBalancer(
            feedforward_dim, channel_dim=-1, max_abs=10.0, min_prob=0.25
        )
        self.activation = DoubleSwishDropout(dropout)
        self.out_proj = scaled_linear(feedforward_dim, d_model, initial_scale=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        out: Tensor = self.out_proj(self.activation(self.balancer(self.in_proj(x))))
        return out


class PoolingModule(nn.Module):
    """Projection of the running mean of all frames so far.

    Args:
        d_model: C.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.proj = scaled_linear(d_model, d_model, bias=False, initial_scale=0.1)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Whole utterances.

        Args:
            x: (T, N, C), or (M, 1, C) with a packing.
            padding_mask: (N, T) bool; with it, the result is 0 at padding frames.
            packing: where the utterances are, if they stand one behind the other.

        Returns:
            As x.
        """
        if packing is not None:
            packed: Tensor = self.proj(running_mean(x, packing))
            return packed
        count = torch.arange(1, x.size(0) + 1, device=x.device, dtype=x.dtype)
        mean = x.cumsum(dim=0) / count[:, None, None]
        if padding_mask is not None:
            mean = mean.masked_fill(padding_mask.t().unsqueeze(-1), 0.0)
        out: Tensor = self.proj(mean)
        return out

    def stream(self, x: Tensor, frames_seen: Tensor, average: Tensor) -> tuple[Tensor, Tensor]:
        """The next frames of streams.

        Args:
            x: (T, N, C).
            frames_seen: (N,) frames before the first.
            average: (N, C) mean of the frames before the first.

        Returns:
            (T, N, C), and the running means (T, N, C).
        """
        # Counts in x's own type: the original's float32 ones cost a float64 model its precision.
        seen = frames_seen.to(x.dtype).unsqueeze(-1)  # (N, 1)
        count = torch.arange(1, x.size(0) + 1, device=x.device, dtype=x.dtype)[:, None, None] + seen
        mean = (x.cumsum(dim=0) + average * seen) / count
        return self.proj(mean), mean


class ZipformerEncoderLayer(nn.Module):
    """One layer; attribute `batch_count` drives what training skips and clamps.

    Args:
        d_model: C.
        attention_dim: A, of all heads' queries.
        nhead: H.
        feedforward_dim: channels between the layers of the feed-forwards.
        dropout: in the feed-forwards.
        cnn_module_kernel: kernel size of the convolutions.
        pos_dim: size of a head's positional query.
    """

    def __init__(
        self,
        d_model: int,
        attention_dim: int,
        nhead: int,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        cnn_module_kernel: int = 31,
        pos_dim: int = 4,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.attention_dim = attention_dim
        self.cnn_module_kernel = cnn_module_kernel
        self.batch_count = 0.0
        self.bypass_scale = nn.Parameter(torch.tensor(0.5))
        self.self_attn = RelPositionMultiheadAttention(d_model, attention_dim, nhead, pos_dim)
        self.pooling = PoolingModule(d_model)
        self.feed_forward1 = FeedforwardModule(d_model, feedforward_dim, dropout)
        self.feed_forward2 = FeedforwardModule(d_model, feedforward_dim, dropout)
        self.feed_forward3 = FeedforwardModule(d_model, feedforward_dim, dropout)
        self.conv_module1 = ConvolutionModule(d_model, cnn_module_kernel)
        self.conv_module2 = ConvolutionModule(d_model, cnn_module_kernel)
        self.norm_final = BasicNorm(d_model)
        self.balancer = ActivationBalancer(
            d_model, channel_dim=-1, min_positive=0.45, max_positive=0.55, max_abs=6.0
        )
        self.whiten = Whiten(1, 5.0, prob=(0.025, 0.25), grad_scale=0.01)

    def forward(
        self,
        src: Tensor,
        pos_emb: Tensor,
        windows: Windows,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Whole utterances.

        Args:
            src: (T, N, C), or (M, 1, C) where the windows have a packing.
            pos_emb: (1, 2 * S - 1 + L, C) positions for `windows`.
            windows: which keys each query of the attention sees.
            padding_mask: (N, T) bool; with it, pooling gives and convolutions see zeros at
                padding frames, as in the original. No valid frame depends on it.

        Returns:
            As src.
        """
        skip = dynamic_dropout(self.batch_count) if self.training else 0.0
        x = src + self.feed_forward1(src)
        if not flip(skip):
            x = x + self.pooling(x, padding_mask, windows.packing)
        weights = None
        if not flip(skip):
            attention, weights = self.self_attn(x, pos_emb, windows)
            x = x + attention
        if not flip(skip):
            x = x + self.conv_module1(x, padding_mask, windows.packing)
        x = x + self.feed_forward2(x)
        if weights is not None:
            x = x + self.self_attn.forward2(x, weights, windows)
        if not flip(skip):
            x = x + self.conv_module2(x, padding_mask, windows.packing)
        x = x + self.feed_forward3(x)
        return self._bypassed(src, x, self._training_bypass_scale())

    def stream(
        self,
        x: Tensor,
        pos_emb: Tensor,
        windows: Windows,
        frames_seen: Tensor,
        cache: LayerCache,
        x_lens: Tensor | None,
    ) -> tuple[Tensor, LayerCache]:
        """The next frames of streams, in evaluation.

        Args:
            x: (T, N, C).
            pos_emb: (1, 2 * S - 1 + L, C) positions for `windows`.
            windows: which keys each query sees, the L cached ones included.
            frames_seen: (N,) int64 frames before the first.
            cache: what the layer kept of them.
            x_lens: (N,) int64 valid frames of x; None if all are valid.

        Returns:
            (T, N, C) and the new cache.
        """
        src = x
        x = x + self.feed_forward1(x)
        pooled, means = self.pooling.stream(x, frames_seen, cache.average)
        x = x + pooled
        attention, weights, keys, values = self.self_attn.stream(
            x, pos_emb, windows, cache.key.transpose(0, 1), cache.value.transpose(0, 1)
        )
        x = x + attention
        convolved, frames1 = self.conv_module1.stream(x, cache.conv1.transpose(0, 1))
        x = x + convolved
        x = x + self.feed_forward2(x)
        attention, values2 = self.self_attn.stream2(
            x, weights, windows, cache.value2.transpose(0, 1)
        )
        x = x + attention
        convolved, frames2 = self.conv_module2.stream(x, cache.conv2.transpose(0, 1))
        x = x + convolved
        x = x + self.feed_forward3(x)
        num_left, num_conv = cache.key.size(1), cache.conv1.size(1)
        new_cache = LayerCache(
            average=kept_mean(cache.average, means, x_lens),
            key=kept_frames(keys, num_left, x_lens),
            value=kept_frames(values, num_left, x_lens),
            value2=kept_frames(values2, num_left, x_lens),
            conv1=kept_frames(frames1, num_conv, x_lens),
            conv2=kept_frames(frames2, num_conv, x_lens),
        )
        return self._bypassed(src, x, self.bypass_scale), new_cache

    def _training_bypass_scale(self) -> Tensor:
        # The raw value now and then: a clamp passes no gradient to a value outside its range.
        if not self.training or flip(0.1):
            return self.bypass_scale
        return self.bypass_scale.clamp(min=min_bypass_scale(self.batch_count), max=1.0)

    def _bypassed(self, src: Tensor, x: Tensor, bypass_scale: Tensor) -> Tensor:
        x = self.norm_final(self.balancer(x))
        out: Tensor = self.whiten(torch.lerp(src, x, bypass_scale.to(x.dtype)))
        return out
