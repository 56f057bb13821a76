"""How does a stack get slower frames, give back fast ones, and mix them with what came in?

Invariant: an utterance's own last frame stands behind its end, whatever its batch mates are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner, SimpleUpsample

__all__ = ["InferenceCombiner", "InferenceDownsample", "InferenceUpsample", "NoSkip"]


class InferenceDownsample(nn.Module):
    """Weighted means of neighbouring frames."""

    def __init__(self, downsample: AttentionDownsample) -> None:
        super().__init__()
        self.factor: int = downsample.downsample
        self.query = downsample.query
        self.extra_proj = downsample.extra_proj

    def forward(self, x: Tensor, lens: Tensor | None) -> Tensor:
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


class InferenceUpsample(nn.Module):
    """Every frame as often as its stack is slower, with a bias for each place."""

    def __init__(self, upsample: SimpleUpsample) -> None:
        super().__init__()
        self.bias = upsample.bias

    def forward(self, x: Tensor) -> Tensor:
        """(T, N, C) to (T * ds, N, C)."""
        return (x.unsqueeze(1) + self.bias.unsqueeze(1)).flatten(0, 1)


class InferenceCombiner(nn.Module):
    """The weighted sum of two streams of frames, the first one filled up with zero channels."""

    def __init__(self, combiner: SimpleCombiner) -> None:
        super().__init__()
        self.num_missing: int = combiner.dim2 - combiner.dim1
        self.weight1 = combiner.weight1

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(T, N, C1) and (T, N, C2) to (T, N, C2)."""
        if self.num_missing > 0:
            x1 = F.pad(x1, (0, self.num_missing))
        return x1 * self.weight1 + x2 * (1.0 - self.weight1)


class NoSkip(nn.Module):
    """In place of a combiner where nothing is mixed in."""

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The second one."""
        return x2
