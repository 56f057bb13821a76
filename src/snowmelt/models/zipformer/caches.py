"""What does a stream of the Zipformer remember? The state, its layout, and how a cache moves on.

Invariant: the stream is the first axis of every tensor; a state is never changed in place.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LayerCache", "StackState", "ZipformerState", "kept_frames", "kept_mean"]


class LayerCache(NamedTuple):
    """What one layer keeps of the frames it has seen.

    Attributes:
        average: (N, C) mean of the pooling's input.
        key: (N, L, A) last keys, oldest first.
        value: (N, L, A / 2) last values of the first attention pass.
        value2: (N, L, A / 2) last values of the second pass.
        conv1: (N, K - 1, C) last inputs of the first depthwise convolution.
        conv2: (N, K - 1, C) the same of the second.
    """

    average: Tensor
    key: Tensor
    value: Tensor
    value2: Tensor
    conv1: Tensor
    conv2: Tensor


class StackState(NamedTuple):
    """The caches of a stack's M layers, layer on the second axis, and the frames it has seen.

    Attributes:
        frames_seen: (N,) int64 frames at the stack's own rate.
        average: (N, M, C).
        key: (N, M, L, A); L = decode_chunk_size * num_left_chunks / downsampling.
        value: (N, M, L, A / 2).
        value2: (N, M, L, A / 2).
        conv1: (N, M, K - 1, C).
        conv2: (N, M, K - 1, C).
    """

    frames_seen: Tensor
    average: Tensor
    key: Tensor
    value: Tensor
    value2: Tensor
    conv1: Tensor
    conv2: Tensor


class ZipformerState(NamedTuple):
    """State of N streams of the encoder.

    Attributes:
        num_frames: (N,) int64, 20 ms frames seen (after the front end).
        stacks: one state a stack.
    """

    num_frames: Tensor
    stacks: tuple[StackState, ...]


def kept_frames(frames: Tensor, num_kept: int, x_lens: Tensor | None) -> Tensor:
    """The cache after a step: the last frames, per stream.

    Args:
        frames: (num_kept + T, N, C), the cache followed by the new frames.
        num_kept: frames to keep.
        x_lens: (N,) int64, valid new frames (0 keeps the cache as it was); None: all T.

    Returns:
        (N, num_kept, C).
    """
    if x_lens is None:
        return frames[frames.size(0) - num_kept :].transpose(0, 1)
    rows = x_lens[:, None] + torch.arange(num_kept, device=frames.device)  # (N, num_kept)
    streams = torch.arange(frames.size(1), device=frames.device)[:, None]
    return frames[rows, streams]


def kept_mean(old: Tensor, means: Tensor, x_lens: Tensor | None) -> Tensor:
    """The running mean after a step.

    Args:
        old: (N, C), the mean before it.
        means: (T, N, C), running means at the new frames.
        x_lens: as in `kept_frames`.

    Returns:
        (N, C).
    """
    if x_lens is None:
        return means[-1]
    return kept_frames(torch.cat([old[None], means]), 1, x_lens).squeeze(1)
