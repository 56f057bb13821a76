"""What does a stack of layers do when it only recognises, at its own frame rate or a slower one?

Invariant: masks and positions are made once a stack, for all its layers.
"""

from typing import cast

import torch
from torch import Tensor, nn

from snowmelt.export.zipformer.attention import forbidden_keys, positional_encoding
from snowmelt.export.zipformer.layer import InferenceLayer
from snowmelt.export.zipformer.resample import (
    InferenceCombiner,
    InferenceDownsample,
    InferenceUpsample,
)
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer
from snowmelt.models.zipformer.stack import DownsampledZipformerEncoder, ZipformerEncoder

__all__ = ["InferenceDownsampledStack", "InferenceStack"]


class InferenceStack(nn.Module):
    """Layers at one frame rate."""

    def __init__(self, stack: ZipformerEncoder) -> None:
        super().__init__()
        self.d_model: int = stack.d_model
        self.layers = nn.ModuleList(
            InferenceLayer(cast(ZipformerEncoderLayer, layer)) for layer in stack.layers
        )

    def forward(
        self,
        x: Tensor,
        lens: Tensor | None,
        chunk: int,
        num_left_chunks: int,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """(T, N, C) and the seven new states of this stack; `lens` None: all frames are valid."""
        num_frames = int(x.size(0))
        left = int(states[2].size(1))
        seen = states[0][0]
        forbidden = forbidden_keys(num_frames, left, chunk, num_left_chunks, seen, lens)
        positions = positional_encoding(num_frames, left, self.d_model, x)
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


class InferenceDownsampledStack(nn.Module):
    """Down, the layers, up, and the mix with what came in."""

    def __init__(self, stack: DownsampledZipformerEncoder) -> None:
        super().__init__()
        self.factor: int = stack.downsample.downsample
        self.downsample = InferenceDownsample(stack.downsample)
        self.encoder = InferenceStack(stack.encoder)
        self.upsample = InferenceUpsample(stack.upsample)
        self.out_combiner = InferenceCombiner(stack.out_combiner)

    def forward(
        self,
        x: Tensor,
        lens: Tensor | None,
        chunk: int,
        num_left_chunks: int,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """As `InferenceStack`."""
        slower = self.downsample(x, lens)
        slower_lens: Tensor | None = None
        if lens is not None:
            slower_lens = (lens + (self.factor - 1)).div(self.factor, rounding_mode="floor")
        y, new = self.encoder(slower, slower_lens, chunk, num_left_chunks, states)
        y = self.upsample(y)
        num_frames = int(x.size(0))
        if num_frames % self.factor != 0:
            y = y[:num_frames]
        return self.out_combiner(x, y), new
