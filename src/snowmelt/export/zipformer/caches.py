"""Which of the frames at hand does a stream keep for its next window? Its last valid ones.

Invariant: as many as the cache has room for, whatever the length of the window.
"""

import torch
from torch import Tensor

__all__ = ["last_columns", "last_frames"]


def last_frames(frames: Tensor, num_kept: int, lens: Tensor | None) -> Tensor:
    """(kept + T, N, C) to (kept, N, C); per stream its last valid ones."""
    if lens is None:
        return frames[int(frames.size(0)) - num_kept :]
    rows = torch.arange(num_kept, device=frames.device).unsqueeze(1) + lens
    return frames.gather(0, rows.unsqueeze(2).expand(-1, -1, int(frames.size(2))))


def last_columns(frames: Tensor, num_kept: int, lens: Tensor | None) -> Tensor:
    """(N, C, kept + T) to (N, C, kept); per stream its last valid ones."""
    if lens is None:
        return frames[:, :, int(frames.size(2)) - num_kept :]
    columns = torch.arange(num_kept, device=frames.device) + lens.unsqueeze(1)
    return frames.gather(2, columns.unsqueeze(1).expand(-1, int(frames.size(1)), -1))
