"""How do the Zipformer's stacks go from one frame rate to another and back?

Invariant: everything here works on (T, N, C). With ``lengths``, an utterance's result depends on
its own frames alone; without, on the last frame of the whole batch, as the original's does.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers import clamp_sometimes, penalize_abs_values_gt

__all__ = ["AttentionDownsample", "SimpleCombiner", "SimpleUpsample"]


class AttentionDownsample(nn.Module):
    """Weighted mean of every ``downsample`` neighbouring frames, the weights from a learned query.

    Args:
        in_channels: C_in.
        out_channels: C_out >= C_in; channels beyond C_in are a projection of the group's frames.
        downsample: frames per group, ds.
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: int) -> None:
        super().__init__()
        assert out_channels >= in_channels, (in_channels, out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.downsample = downsample
        self.query = nn.Parameter(torch.randn(in_channels) * in_channels**-0.5)
        self.extra_proj: nn.Linear | None = None
        if out_channels > in_channels:
            self.extra_proj = nn.Linear(
                in_channels * downsample, out_channels - in_channels, bias=False
            )

    def forward(self, src: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mean of each group of frames.

        Args:
            src: (T, N, C_in).
            lengths: (N,) int64, valid frames of each utterance; every later frame, up to the end of
                the last group, is taken to be the utterance's own last one. None: the last group is
                filled with the last frame of the batch (icefall_compat).

        Returns:
            (ceil(T / ds), N, C_out).
        """
        num_frames, batch_size, in_channels = src.shape
        ds = self.downsample
        num_groups = (num_frames + ds - 1) // ds
        num_missing = num_groups * ds - num_frames
        if num_missing > 0:
            src = torch.cat([src, src[-1:].expand(num_missing, batch_size, in_channels)])
        if lengths is not None:
            src = _repeat_own_last_frame(src, lengths)
        groups = src.reshape(num_groups, ds, batch_size, in_channels)
        scores = (groups * self.query).sum(dim=-1)  # (T / ds, ds, N)
        if self.training:
            scores = penalize_abs_values_gt(scores, limit=10.0, penalty=1.0e-4)
        weights = scores.softmax(dim=1)
        means = (groups * weights.unsqueeze(-1)).sum(dim=1)  # (T / ds, N, C_in)
        if self.extra_proj is None:
            return means
        frames_side_by_side = groups.permute(0, 2, 1, 3).flatten(start_dim=2)
        return torch.cat([means, self.extra_proj(frames_side_by_side)], dim=-1)


def _repeat_own_last_frame(src: Tensor, lengths: Tensor) -> Tensor:
    """(T, N, C) with the frames t >= lengths[n] of utterance n replaced by frame lengths[n] - 1."""
    num_frames, batch_size, _ = src.shape
    last_index = (lengths - 1).clamp(min=0)  # an empty utterance has no frame of its own to repeat
    last = src[last_index, torch.arange(batch_size, device=src.device)]  # (N, C)
    is_past = torch.arange(num_frames, device=src.device).unsqueeze(1) >= lengths
    return torch.where(is_past.unsqueeze(-1), last, src)


class SimpleUpsample(nn.Module):
    """Each frame repeated ``upsample`` times, a learned bias added to each repetition.

    Args:
        num_channels: C.
        upsample: repetitions, ds.
    """

    def __init__(self, num_channels: int, upsample: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(upsample, num_channels) * 0.01)

    def forward(self, src: Tensor) -> Tensor:
        """(T, N, C) to (T * ds, N, C): y[t * ds + j] = x[t] + bias[j]."""
        repeated = src.unsqueeze(1) + self.bias.unsqueeze(1)  # (T, ds, N, C)
        return repeated.flatten(start_dim=0, end_dim=1)


class SimpleCombiner(nn.Module):
    """y = weight1 * pad(x1) + (1 - weight1) * x2, with a learned scalar ``weight1``, at first 0.

    Args:
        dim1: channels of the first input.
        dim2: channels of the second input and of the output, >= dim1.
        min_weight: in training, with probability 0.25, weight1 is clamped to
            [min_weight[0], 1 - min_weight[1]]; (0.0, 0.0) never clamps.
    """

    def __init__(self, dim1: int, dim2: int, min_weight: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        assert dim2 >= dim1, (dim1, dim2)
        self.dim1 = dim1
        self.dim2 = dim2
        self.min_weight1 = min_weight[0]
        self.max_weight1 = 1.0 - min_weight[1]
        self.weight1 = nn.Parameter(torch.tensor(0.0))

    def forward(self, src1: Tensor, src2: Tensor) -> Tensor:
        """(T, N, dim1) and (T, N, dim2) to (T, N, dim2)."""
        weight1: Tensor = self.weight1
        if self.training:
            weight1 = self._training_weight(weight1)
        if self.dim1 < self.dim2:
            src1 = nn.functional.pad(src1, (0, self.dim2 - self.dim1))
        return src1 * weight1 + src2 * (1.0 - weight1)

    @torch.jit.unused
    def _training_weight(self, weight1: Tensor) -> Tensor:
        has_limits = self.min_weight1 != 0.0 or self.max_weight1 != 1.0
        if not (torch.is_grad_enabled() and has_limits):
            return weight1
        return clamp_sometimes(weight1, self.min_weight1, self.max_weight1, prob=0.25)
