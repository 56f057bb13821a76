"""What does a stream of the LSTM encoder remember, and how do other runtimes see it?

Invariant: in `LstmState` the stream is the first axis of every tensor; icefall's pair has the
layers there. Nothing is lost either way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LstmState", "flat_to_state", "state_after", "state_to_flat"]


class LstmState(NamedTuple):
    """State of N streams of the encoder.

    Attributes:
        h: (N, L, C) last outputs of the L layers' LSTMs.
        c: (N, L, H) last cells.
    """

    h: Tensor
    c: Tensor


def state_to_flat(state: LstmState) -> tuple[Tensor, Tensor]:
    """icefall's pair h (L, N, C), c (L, N, H)."""
    return state.h.transpose(0, 1), state.c.transpose(0, 1)


def flat_to_state(flat: tuple[Tensor, Tensor]) -> LstmState:
    """The state of icefall's pair h (L, N, C), c (L, N, H)."""
    h, c = flat
    return LstmState(h.transpose(0, 1), c.transpose(0, 1))


def state_after(frames: Tensor, before: Tensor, x_lens: Tensor | None) -> Tensor:
    """What a stream remembers after its last valid frame.

    Args:
        frames: (T, N, C), h or c of a layer at every new frame.
        before: (N, C), the same at the frame before.
        x_lens: (N,) int64, valid new frames (0 leaves a stream as it was); None: all T.

    Returns:
        (N, C) in the type of `before`.
    """
    if x_lens is None:
        return frames[-1].to(before.dtype)
    streams = torch.arange(frames.size(1), device=frames.device)
    last = frames[(x_lens - 1).clamp(min=0), streams].to(before.dtype)
    return torch.where((x_lens > 0).unsqueeze(1), last, before)
