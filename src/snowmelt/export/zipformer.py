"""What is left of the Zipformer when it only recognises? One forward, for windows of any length.

A window is read after any number of frames, from the state in the form of icefall's flat list. A
whole utterance is one long window after none. The attention forbids what a stream has not heard yet
by the count of frames that the state holds, so streaming gives the numbers of the whole in every
runtime that feeds the state back, sherpa-onnx too.

Invariant: the numbers of `models.zipformer.encoder.Zipformer` in evaluation (tests hold the two
together); weights are shared with the model, nothing is trained here. torch.jit.script compiles all
of it, and with whole windows the batch is the only size that varies.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py (names and
order of the states).
"""

import math
from typing import Final, Optional, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.export.layers import ConstantNorm, Swish, valid_frames
from snowmelt.models.zipformer.attention import RelPositionMultiheadAttention
from snowmelt.models.zipformer.convolution import ConvolutionModule
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.models.zipformer.layer import FeedforwardModule, PoolingModule, ZipformerEncoderLayer
from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner, SimpleUpsample
from snowmelt.models.zipformer.stack import DownsampledZipformerEncoder, ZipformerEncoder
from snowmelt.models.zipformer.subsampling import Conv2dSubsampling

__all__ = ["NUM_STATE_GROUPS", "STATE_BATCH_AXES", "STATE_NAMES", "InferenceZipformer"]

# Groups of the flat list, each with one entry a stack, and the axis of the streams in each.
STATE_NAMES: Final = ("len", "avg", "key", "val", "val2", "conv1", "conv2")
STATE_BATCH_AXES: Final = (1, 1, 2, 2, 2, 1, 1)
NUM_STATE_GROUPS: Final = len(STATE_NAMES)


class InferenceZipformer(nn.Module):
    """The encoder of a trained model, scriptable.

    Args:
        encoder: the trained encoder.

    Attributes:
        decode_chunk_size: chunk in 20 ms frames; may be set to another multiple of every
            downsampling factor, also after loading. Fresh states follow it.
    """

    num_layers: list[int]
    attention_dims: list[int]
    kernel_sizes: list[int]

    def __init__(self, encoder: Zipformer) -> None:
        super().__init__()
        self.decode_chunk_size: int = encoder.decode_chunk_size
        self.num_left_chunks: int = encoder.num_left_chunks
        self.num_stacks: int = len(encoder.encoders)
        self.num_features: int = encoder.num_features
        self.encoder_dims = list(encoder.encoder_dims)
        self.factors = list(encoder.zipformer_downsampling_factors)
        self.skip_sources = [-1 if i is None else i for i in encoder.skip_layers]
        stacks = [_layers_of(stack) for stack in encoder.encoders]
        self.num_layers = [stack.num_layers for stack in stacks]
        self.attention_dims = [stack.attention_dim for stack in stacks]
        self.kernel_sizes = [stack.cnn_module_kernel for stack in stacks]
        self.encoder_embed = _Embedding(encoder.encoder_embed)
        self.encoders = nn.ModuleList(_stack(stack) for stack in encoder.encoders)
        self.skip_modules = nn.ModuleList(
            _Combiner(skip) if isinstance(skip, SimpleCombiner) else _NoSkip()
            for skip in encoder.skip_modules
        )
        self.downsample_output = _Downsample(encoder.downsample_output)

    def forward(
        self, x: Tensor, x_lens: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The next frames of streams.

        Args:
            x: (N, T, F), windows of 7 + 2 * decode_chunk_size * k feature frames.
            x_lens: (N,) valid frames; a window that is not whole ends its stream.
            states: the flat list of N streams.

        Returns:
            (N, T'', C), its lengths (N,) int64, and the new states.
        """
        return self._run(x, x_lens, states)

    @torch.jit.export
    def non_streaming_forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances: (N, T, F), (N,) -> (N, T'', C), (N,) int64."""
        # Not `forward`: a tracer makes that one its own.
        out, lens, _ = self._run(x, x_lens, self.get_init_states(x.size(0), x.device))
        return out, lens

    @torch.jit.export
    def get_init_state(self, device: torch.device = torch.device("cpu")) -> list[Tensor]:  # noqa: B008
        """State of one stream that has heard nothing."""
        return self.get_init_states(1, device)

    @torch.jit.export
    def get_init_states(self, batch_size: int, device: torch.device) -> list[Tensor]:
        """State of streams that have heard nothing."""
        states: list[Tensor] = []
        for group in range(7):
            for i in range(self.num_stacks):
                layers, dim = self.num_layers[i], self.encoder_dims[i]
                width = self.attention_dims[i]
                left = self.left_context(i)
                if group == 0:
                    shape = [layers, batch_size]
                elif group == 1:
                    shape = [layers, batch_size, dim]
                elif group == 2:
                    shape = [layers, left, batch_size, width]
                elif group <= 4:
                    shape = [layers, left, batch_size, width // 2]
                else:
                    shape = [layers, batch_size, dim, self.kernel_sizes[i] - 1]
                dtype = torch.int64 if group == 0 else self.downsample_output.query.dtype
                states.append(torch.zeros(shape, dtype=dtype, device=device))
        return states

    @torch.jit.export
    def left_context(self, stack: int) -> int:
        """Frames, at its rate, that a stack's attention keeps."""
        return self.decode_chunk_size * self.num_left_chunks // self.factors[stack]

    def _run(
        self, x: Tensor, x_lens: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        lens = valid_frames(x_lens, 7, 2)
        out, new_states = self.advance(_filled(x, x_lens), lens, states)
        return out, valid_frames(lens, -1, 2), new_states

    @torch.jit.export
    def advance(
        self,
        x: Tensor,
        lens: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Encoder frames (N, T'', C) and new states.

        Args:
            x: (N, T, F).
            lens: (N,) int64 valid frames after the front end; None: all of them, which gives a
                smaller graph.
            states: the flat list.
        """
        x = self.encoder_embed(x).transpose(0, 1)  # (T', N, C)
        n = self.num_stacks
        outputs: list[Tensor] = []
        groups: list[list[Tensor]] = [[], [], [], [], [], [], []]
        for i, (stack, skip) in enumerate(zip(self.encoders, self.skip_modules)):  # noqa: B905
            source = self.skip_sources[i]
            x = skip(outputs[source] if source >= 0 else x, x)
            chunk = self.decode_chunk_size // self.factors[i]
            old = [states[group * n + i] for group in range(7)]
            x, new = stack(x, lens, chunk, self.num_left_chunks, old)
            outputs.append(x)
            for group in range(7):
                groups[group].append(new[group])
        out = self.downsample_output(x, lens).transpose(0, 1)
        new_states: list[Tensor] = []
        for group in range(7):
            new_states += groups[group]
        return out, new_states


class _Embedding(nn.Module):
    def __init__(self, embedding: Conv2dSubsampling) -> None:
        super().__init__()
        kept = (nn.Conv2d,)
        self.conv = nn.Sequential(
            *(
                part
                if isinstance(part, kept)
                else Swish()
                if type(part).__name__ == "DoubleSwish"
                else nn.Identity()
                for part in embedding.conv
            )
        )
        self.out = embedding.out

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


class _Stack(nn.Module):
    """Layers at one frame rate."""

    def __init__(self, stack: ZipformerEncoder) -> None:
        super().__init__()
        self.d_model: int = stack.d_model
        self.layers = nn.ModuleList(
            _Layer(cast(ZipformerEncoderLayer, layer)) for layer in stack.layers
        )

    def forward(
        self,
        x: Tensor,
        lens: Optional[Tensor],  # noqa: UP045
        chunk: int,
        num_left_chunks: int,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        num_frames = int(x.size(0))
        left = int(states[2].size(1))
        seen = states[0][0]
        forbidden = _forbidden(num_frames, left, chunk, num_left_chunks, seen, lens)
        positions = _positions(num_frames, left, self.d_model, x)
        # Sums over many frames need more than half precision.
        sum_type = torch.float32 if x.dtype == torch.float16 else x.dtype
        count = torch.arange(1, num_frames + 1, device=x.device).unsqueeze(1) + seen
        count = count.to(sum_type).unsqueeze(2)  # (T, N, 1)
        seen_before = seen.to(sum_type).unsqueeze(1)
        new: list[list[Tensor]] = [[], [], [], [], [], []]
        parts = [state.unbind(0) for state in states[1:]]
        for i, layer in enumerate(self.layers):
            cache = [part[i] for part in parts]
            x, kept = layer(x, positions, forbidden, seen_before, count, lens, cache)
            for group in range(6):
                new[group].append(kept[group])
        advanced = states[0] + num_frames if lens is None else states[0] + lens
        return x, [advanced] + [torch.stack(group) for group in new]


class _DownsampledStack(nn.Module):
    """Down, the layers, up, and the mix with what came in."""

    def __init__(self, stack: DownsampledZipformerEncoder) -> None:
        super().__init__()
        self.factor: int = stack.downsample.downsample
        self.downsample = _Downsample(stack.downsample)
        self.encoder = _Stack(stack.encoder)
        self.upsample = _Upsample(stack.upsample)
        self.out_combiner = _Combiner(stack.out_combiner)

    def forward(
        self,
        x: Tensor,
        lens: Optional[Tensor],  # noqa: UP045
        chunk: int,
        num_left_chunks: int,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        slower = self.downsample(x, lens)
        slower_lens: Optional[Tensor] = None  # noqa: UP045
        if lens is not None:
            slower_lens = (lens + (self.factor - 1)).div(self.factor, rounding_mode="floor")
        y, new = self.encoder(slower, slower_lens, chunk, num_left_chunks, states)
        y = self.upsample(y)
        num_frames = int(x.size(0))
        if num_frames % self.factor != 0:
            y = y[:num_frames]
        return self.out_combiner(x, y), new


class _Layer(nn.Module):
    def __init__(self, layer: ZipformerEncoderLayer) -> None:
        super().__init__()
        self.bypass_scale = layer.bypass_scale
        self.self_attn = _Attention(layer.self_attn)
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
        lens: Optional[Tensor],  # noqa: UP045
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
            average = _last_frames(torch.cat([cache[0].unsqueeze(0), mean]), 1, lens).squeeze(0)
        kept = [
            average,
            _last_frames(key, int(cache[1].size(0)), lens),
            _last_frames(value, int(cache[2].size(0)), lens),
            _last_frames(value2, int(cache[3].size(0)), lens),
            _last_columns(conv1, int(cache[4].size(2)), lens),
            _last_columns(conv2, int(cache[5].size(2)), lens),
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


class _Attention(nn.Module):
    def __init__(self, attention: RelPositionMultiheadAttention) -> None:
        super().__init__()
        self.num_heads: int = attention.num_heads
        self.pos_dim: int = attention.pos_dim
        width = attention.attention_dim
        self.sizes = [width, width, width // 2, attention.num_heads * attention.pos_dim]
        self.in_proj = attention.in_proj
        self.linear_pos = attention.linear_pos
        self.out_proj = attention.out_proj
        self.in_proj2 = attention.in_proj2
        self.out_proj2 = attention.out_proj2

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        forbidden: Tensor,
        cached_key: Tensor,
        cached_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(T, N, C), weights (N, H, T, W), all keys and all values (W, N, .)."""
        q, k, v, p = self.in_proj(x).split(self.sizes, dim=-1)
        k = torch.cat([cached_key, k])
        v = torch.cat([cached_value, v])
        scores = torch.matmul(self._heads(q, 0, 2, 3), self._heads(k, 2, 3, 0))
        pos = self.linear_pos(positions).view(-1, self.num_heads, self.pos_dim)
        by_distance = torch.matmul(self._heads(p, 0, 2, 3), pos.permute(1, 2, 0))
        scores = scores + _by_key(by_distance, int(q.size(0)), int(k.size(0)))
        # Far below every score, and a half-precision number: 0 after the softmax.
        weights = scores.masked_fill(forbidden, -6.0e4).softmax(-1)
        return self.out_proj(self._sums(weights, v)), weights, k, v

    @torch.jit.export
    def again(self, x: Tensor, weights: Tensor, cached_value: Tensor) -> tuple[Tensor, Tensor]:
        """The same weights on new values: (T, N, C) and all values."""
        v = torch.cat([cached_value, self.in_proj2(x)])
        return self.out_proj2(self._sums(weights, v)), v

    def _heads(self, x: Tensor, time: int, a: int, b: int) -> Tensor:
        """(T, N, H * D) to (N, H, T, D), or with time 2 to (N, H, D, T)."""
        x = x.reshape(int(x.size(0)), -1, self.num_heads, int(x.size(2)) // self.num_heads)
        if time == 0:
            return x.permute(1, 2, 0, 3)
        return x.permute(1, 2, 3, 0)

    def _sums(self, weights: Tensor, v: Tensor) -> Tensor:
        y = torch.matmul(weights, self._heads(v, 0, 2, 3)).permute(2, 0, 1, 3)  # (T, N, H, D)
        return y.flatten(2)


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
        x = self.activation(self.depthwise_conv(frames)).permute(2, 0, 1)
        x = F.linear(x, self.pointwise_conv2.weight.squeeze(-1), self.pointwise_conv2.bias)
        return x, frames


class _Downsample(nn.Module):
    def __init__(self, downsample: AttentionDownsample) -> None:
        super().__init__()
        self.factor: int = downsample.downsample
        self.query = downsample.query
        self.extra_proj = downsample.extra_proj

    def forward(self, x: Tensor, lens: Optional[Tensor]) -> Tensor:  # noqa: UP045
        """(T, N, C_in) to (T / ds, N, C_out), rounded up."""
        num_frames, channels, ds = int(x.size(0)), int(x.size(2)), self.factor
        num_groups = (num_frames + ds - 1) // ds
        num_missing = num_groups * ds - num_frames
        if num_missing > 0:
            x = torch.cat([x] + [x[-1:]] * num_missing)
        if lens is not None:
            # An utterance's own last frame stands behind its end.
            rows = torch.arange(num_groups * ds, device=x.device).unsqueeze(1)
            rows = torch.minimum(rows, (lens - 1).clamp(min=0))
            x = x.gather(0, rows.unsqueeze(2).expand(-1, -1, channels))
        groups = x.reshape(num_groups, ds, -1, channels)
        weights = (groups * self.query).sum(-1, keepdim=True).softmax(1)
        means = (groups * weights).sum(1)
        if self.extra_proj is not None:
            side_by_side = groups.permute(0, 2, 1, 3).flatten(2)
            means = torch.cat([means, self.extra_proj(side_by_side)], dim=-1)
        return means


class _Upsample(nn.Module):
    def __init__(self, upsample: SimpleUpsample) -> None:
        super().__init__()
        self.bias = upsample.bias

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) + self.bias.unsqueeze(1)).flatten(0, 1)


class _Combiner(nn.Module):
    def __init__(self, combiner: SimpleCombiner) -> None:
        super().__init__()
        self.num_missing: int = combiner.dim2 - combiner.dim1
        self.weight1 = combiner.weight1

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        if self.num_missing > 0:
            x1 = F.pad(x1, (0, self.num_missing))
        return x1 * self.weight1 + x2 * (1.0 - self.weight1)


class _NoSkip(nn.Module):
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return x2


def _layers_of(stack: nn.Module) -> ZipformerEncoder:
    layers = stack.encoder if isinstance(stack, DownsampledZipformerEncoder) else stack
    assert isinstance(layers, ZipformerEncoder), type(layers)
    return layers


def _stack(stack: nn.Module) -> nn.Module:
    if isinstance(stack, DownsampledZipformerEncoder):
        return _DownsampledStack(stack)
    assert isinstance(stack, ZipformerEncoder), type(stack)
    return _Stack(stack)


def _filled(x: Tensor, x_lens: Tensor) -> Tensor:
    """Behind the end of an utterance stands log(1e-10), whatever a caller left there."""
    is_past = torch.arange(x.size(1), device=x.device) >= x_lens.unsqueeze(1)
    return x.masked_fill(is_past.unsqueeze(2), -23.025850929940457)


def _forbidden(
    num_frames: int,
    left: int,
    chunk: int,
    num_left_chunks: int,
    seen: Tensor,
    lens: Optional[Tensor],  # noqa: UP045
) -> Tensor:
    """(N, 1, T or 1, L + T) bool, True where a query must not see a key."""
    key = torch.arange(-left, num_frames, device=seen.device)
    forbidden = key < -seen.unsqueeze(1)  # before the stream began
    if lens is not None:
        forbidden = forbidden | (key >= lens.unsqueeze(1))
    forbidden = forbidden.unsqueeze(1).unsqueeze(1)
    if num_frames > chunk:
        query = torch.arange(num_frames, device=seen.device).unsqueeze(1)
        ahead = key.div(chunk, rounding_mode="floor") - query.div(chunk, rounding_mode="floor")
        forbidden = forbidden | (ahead > 0) | (ahead < -num_left_chunks)
    return forbidden


def _positions(num_frames: int, left: int, d_model: int, like: Tensor) -> Tensor:
    """(2 * T - 1 + L, C): row r encodes the distance T + L - 1 - r of a key in the past."""
    longest = num_frames + left
    distance = torch.arange(longest - 1, -num_frames, -1, device=like.device).unsqueeze(1)
    even = torch.arange(0, d_model, 2, device=like.device)
    rate = torch.exp(even.to(torch.float32) * (-math.log(10000.0) / d_model))
    angle = distance.to(torch.float32) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


def _running_mean(x: Tensor, average: Tensor, seen: Tensor, count: Tensor) -> Tensor:
    """(T, N, C) mean of all frames up to each, `seen` of which were before and had `average`."""
    if x.dtype == count.dtype:
        return (x.cumsum(0) + average * seen) / count
    wide = (x.to(count.dtype).cumsum(0) + average.to(count.dtype) * seen) / count
    return wide.to(x.dtype)


def _by_key(by_distance: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """(N, H, T, T - 1 + W) to (N, H, T, W): out[i, j] = in[i, T - 1 - i + j]."""
    if num_queries == 1:
        return by_distance
    num_distances = num_queries - 1 + num_keys
    # Row i of the result begins one element further left in each row.
    flat = by_distance.flatten(2)[:, :, num_queries - 1 : num_queries * num_distances - 1]
    rows: Tensor = flat.unflatten(2, [num_queries, num_distances - 1])
    return rows[:, :, :, :num_keys]


def _last_frames(frames: Tensor, num_kept: int, lens: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """(kept + T, N, C) to (kept, N, C); per stream its last valid ones."""
    if lens is None:
        return frames[int(frames.size(0)) - num_kept :]
    rows = torch.arange(num_kept, device=frames.device).unsqueeze(1) + lens
    return frames.gather(0, rows.unsqueeze(2).expand(-1, -1, int(frames.size(2))))


def _last_columns(frames: Tensor, num_kept: int, lens: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """(N, C, kept + T) to (N, C, kept); per stream its last valid ones."""
    if lens is None:
        return frames[:, :, int(frames.size(2)) - num_kept :]
    columns = torch.arange(num_kept, device=frames.device) + lens.unsqueeze(1)
    return frames.gather(2, columns.unsqueeze(1).expand(-1, int(frames.size(1)), -1))
