"""What is one stack of the Zipformer? Layers at one frame rate, between going down and coming up.

Invariant: (T, N, C) in and out, T at the rate of the encoder's embedding. A layer that training
drops is passed over completely.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from snowmelt.models.zipformer.attention import RelPositionalEncoding
from snowmelt.models.zipformer.caches import LayerCache, StackState
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer
from snowmelt.models.zipformer.randomness import dropped_layers, layer_drop_prob
from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner, SimpleUpsample
from snowmelt.models.zipformer.windows import Windows

__all__ = ["DownsampledZipformerEncoder", "ZipformerEncoder", "skip_connections"]


class ZipformerEncoder(nn.Module):
    """Layers at one frame rate; attribute `batch_count` drives which of them training drops.

    Args:
        encoder_layer: every layer starts as a copy of it.
        num_layers: M.
        dropout: on the positional encoding.
        warmup_begin, warmup_end: batches between which the layers, one after the other, stop being
            dropped often.
    """

    def __init__(
        self,
        encoder_layer: ZipformerEncoderLayer,
        num_layers: int,
        dropout: float,
        warmup_begin: float,
        warmup_end: float,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.d_model = encoder_layer.d_model
        self.attention_dim = encoder_layer.attention_dim
        self.cnn_module_kernel = encoder_layer.cnn_module_kernel
        self.batch_count = 0.0
        self.warmup_begin = warmup_begin
        self.warmup_end = warmup_end
        self.encoder_pos = RelPositionalEncoding(encoder_layer.d_model, dropout)
        self.layers = nn.ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))

    def forward(
        self,
        src: Tensor,
        windows: Windows,
        feature_mask: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Whole utterances.

        Args:
            src: (T, N, C), or (M, 1, C) where the windows have a packing.
            windows: which keys each query of the attention sees.
            feature_mask: like src, factors applied before and after every layer (training).
            padding_mask: (N, T) bool, only to compute padding frames as the original does.

        Returns:
            As src.
        """
        pos_emb = self.encoder_pos.rows(windows.block, windows.left, src)
        x = src if feature_mask is None else src * feature_mask
        dropped = self._dropped_layers() if self.training else set()
        for index, layer in enumerate(self.layers):
            if index in dropped:
                continue
            x = layer(x, pos_emb, windows, padding_mask)
            if feature_mask is not None:
                x = x * feature_mask
        return x

    def stream(
        self, x: Tensor, windows: Windows, state: StackState, x_lens: Tensor | None
    ) -> tuple[Tensor, StackState]:
        """The next frames of streams.

        Args:
            x: (T, N, C).
            windows: which keys each query sees, cached ones included.
            state: of the same N streams.
            x_lens: (N,) int64 valid frames; None if all T are valid.

        Returns:
            (T, N, C) and the new state.
        """
        pos_emb = self.encoder_pos.rows(windows.block, windows.left, x)
        caches = []
        for index, layer in enumerate(self.layers):
            old = LayerCache(*(part[:, index] for part in state[1:]))
            layer = cast(ZipformerEncoderLayer, layer)
            x, new = layer.stream(x, pos_emb, windows, state.frames_seen, old, x_lens)
            caches.append(new)
        frames_seen = state.frames_seen + (x.size(0) if x_lens is None else x_lens)
        parts = [torch.stack(layer_parts, dim=1) for layer_parts in zip(*caches, strict=True)]
        return x, StackState(frames_seen, *parts)

    def init_state(self, num_streams: int, num_left: int, like: Tensor) -> StackState:
        """State of `num_streams` fresh streams that keep `num_left` frames for the attention."""
        head = (num_streams, self.num_layers)
        num_conv = self.cnn_module_kernel - 1
        return StackState(
            frames_seen=like.new_zeros(num_streams, dtype=torch.int64),
            average=like.new_zeros(*head, self.d_model),
            key=like.new_zeros(*head, num_left, self.attention_dim),
            value=like.new_zeros(*head, num_left, self.attention_dim // 2),
            value2=like.new_zeros(*head, num_left, self.attention_dim // 2),
            conv1=like.new_zeros(*head, num_conv, self.d_model),
            conv2=like.new_zeros(*head, num_conv, self.d_model),
        )

    def _dropped_layers(self) -> set[int]:
        step = (self.warmup_end - self.warmup_begin) / self.num_layers
        begins = [self.warmup_begin + step * index for index in range(self.num_layers)]
        return dropped_layers(
            [layer_drop_prob(self.batch_count, begin, begin + step) for begin in begins]
        )


class DownsampledZipformerEncoder(nn.Module):
    """A stack at a lower frame rate, and a learned mix of its output with its input.

    Args:
        encoder: the layers.
        input_dim: channels of the stack before.
        output_dim: channels of `encoder`.
        downsample: ds.
    """

    def __init__(
        self, encoder: ZipformerEncoder, input_dim: int, output_dim: int, downsample: int
    ) -> None:
        super().__init__()
        self.downsample = AttentionDownsample(input_dim, output_dim, downsample)
        self.encoder = encoder
        self.upsample = SimpleUpsample(output_dim, downsample)
        self.out_combiner = SimpleCombiner(input_dim, output_dim, min_weight=(0.0, 0.25))

    def forward(
        self,
        src: Tensor,
        windows: Windows,
        feature_mask: Tensor | None = None,
        padding_mask: Tensor | None = None,
        x_lens: Tensor | None = None,
    ) -> Tensor:
        """Whole utterances.

        Args:
            src: (T, N, C_in), or (M, 1, C_in) where the windows have a packing.
            windows, feature_mask, padding_mask: as in `ZipformerEncoder`, at the stack's rate.
            x_lens: (N,) int64 valid frames of src; None as in `AttentionDownsample`, and where src
                is packed: then the slots are full, see `fill_slots`.

        Returns:
            As src.
        """
        x = self.encoder(self.downsample(src, x_lens), windows, feature_mask, padding_mask)
        return self._combined(src, x)

    def stream(
        self,
        src: Tensor,
        windows: Windows,
        state: StackState,
        x_lens: Tensor | None,
        own_lens: Tensor | None,
    ) -> tuple[Tensor, StackState]:
        """The next frames of streams.

        Args:
            src: (T, N, C_in).
            windows, state: as in `ZipformerEncoder.stream`.
            x_lens: (N,) int64 valid frames at the stack's rate; None if all are valid.
            own_lens: (N,) int64 valid frames of src; None as in `AttentionDownsample`.

        Returns:
            (T, N, C) and the new state.
        """
        x, state = self.encoder.stream(self.downsample(src, own_lens), windows, state, x_lens)
        return self._combined(src, x), state

    def _combined(self, src: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.out_combiner(src, self.upsample(x)[: src.size(0)])
        return out


def skip_connections(factors: tuple[int, ...]) -> list[int | None]:
    """For each stack, the earlier stack whose output is mixed into its input, or None.

    After a stack that worked at a lower rate, the last one before it that did not.
    """
    sources: list[int | None] = []
    for i, factor in enumerate(factors):
        if i <= 1 or factors[i - 1] <= factor:
            sources.append(None)
            continue
        candidates = [j for j in range(i - 1) if factors[j] <= factor]
        sources.append(max(candidates, default=0))
    return sources
