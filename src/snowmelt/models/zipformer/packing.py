"""How are utterances of different lengths trained on without computing the padding between them?

They stand one behind the other on one time axis, (M, 1, C), each in a slot of its own that begins
at a multiple of every downsampling factor. Layers work on single frames mostly and notice nothing;
what looks at other frames (attention, convolutions, running means) asks here where slots begin.
Regularisers that take statistics over all frames then see filler, a hundredth, in place of padding.

Invariant: a slot is a little longer than its utterance; the frames behind the utterance are filler
that no valid frame depends on. Under its last frame a slot holds enough of them for the embedding,
whose outputs across two slots are filler too.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.models.regularisers.common import apply_function, cpu_kernels_usable

__all__ = ["Packing", "fill_slots", "pack", "pack_features", "packing_of", "running_mean", "unpack"]

# Frames behind an utterance of which the embedding, reading 7 features ahead, needs the features.
_LEAST_FILLER: Final = 4


class Packing(NamedTuple):
    """Where the utterances are on the common time axis.

    Attributes:
        offsets: N + 1 numbers, the first frames of the slots and M.
        lens: N numbers, valid frames.
    """

    offsets: tuple[int, ...]
    lens: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the longest slot."""
        return max(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Frames of each slot."""
        return [end - begin for begin, end in zip(self.offsets, self.offsets[1:], strict=False)]

    def at(self, downsampling: int) -> "Packing":
        """The same utterances at a lower frame rate."""
        return Packing(
            tuple(offset // downsampling for offset in self.offsets),
            tuple(-(-length // downsampling) for length in self.lens),
        )


def packing_of(lens: Tensor, multiple: int) -> Packing:
    """Slots for utterances of `lens` (N,) frames, each a multiple of `multiple` long."""
    offsets = [0]
    for length in lens.tolist():
        offsets.append(offsets[-1] + -(-(length + _LEAST_FILLER) // multiple) * multiple)
    return Packing(tuple(offsets), tuple(lens.tolist()))


def pack_features(x: Tensor, x_lens: Tensor, packing: Packing) -> Tensor:
    """Features of all utterances as one, each followed by copies of its last frame.

    Args:
        x: (N, T, F).
        x_lens: (N,) int64 valid frames.
        packing: slots after the embedding, two feature frames each.

    Returns:
        (1, 2 * M + 7, F): the embedding makes M frames of it.
    """
    out = x.new_empty(1, 2 * packing.offsets[-1] + 7, x.size(2))
    for n, (begin, length) in enumerate(zip(packing.offsets, x_lens.tolist(), strict=False)):
        out[0, 2 * begin : 2 * begin + length] = x[n, :length]
        # Everything up to the end; the next utterance writes over its part.
        out[0, 2 * begin + length :] = x[n, length - 1]
    return out


def pack(x: Tensor, packing: Packing) -> Tensor:
    """(T, N, C), T frames of the longest slot, to (M, 1, C)."""
    parts = [x[:size, n] for n, size in enumerate(packing.sizes)]
    return torch.cat(parts).unsqueeze(1)


def unpack(x: Tensor, packing: Packing) -> Tensor:
    """(M, 1, C) to (T, N, C), zeros behind the slots."""
    num_frames = packing.num_frames
    parts = x.squeeze(1).split(packing.sizes)
    return torch.stack([F.pad(p, (0, 0, 0, num_frames - p.size(0))) for p in parts], dim=1)


def fill_slots(x: Tensor, packing: Packing) -> Tensor:
    """(M, 1, C) with every utterance's last frame repeated to the end of its slot."""
    return apply_function(_FillFunction, x, packing)


class _FillFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        filled = x.clone()
        for begin, end, length in zip(
            packing.offsets, packing.offsets[1:], packing.lens, strict=False
        ):
            filled[begin + length : end] = x[begin + length - 1]
        return filled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        grad_x = grad.clone()
        packing: Packing = ctx.packing
        for begin, end, length in zip(
            packing.offsets, packing.offsets[1:], packing.lens, strict=False
        ):
            grad_x[begin + length - 1] += grad[begin + length : end].sum(dim=0)
            grad_x[begin + length : end] = 0.0
        return grad_x, None


def running_mean(x: Tensor, packing: Packing) -> Tensor:
    """Mean of every utterance's frames up to each frame, (M, 1, C) to (M, 1, C)."""
    if cpu_kernels_usable(x):
        return apply_function(_RunningMeanFunction, x, packing)
    means = []
    for part in x.split(packing.sizes):
        count = torch.arange(1, part.size(0) + 1, device=x.device, dtype=x.dtype)
        means.append(part.cumsum(dim=0) / count[:, None, None])
    return torch.cat(means)


class _RunningMeanFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        from snowmelt.models.cpu_elements import as_array
        from snowmelt.models.zipformer.packing_kernels import running_mean

        ctx.slots = np.array(packing.offsets)
        x = x.detach().contiguous()
        y = torch.empty_like(x)
        running_mean(as_array(x.squeeze(1)), ctx.slots, as_array(y.squeeze(1)))
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        from snowmelt.models.cpu_elements import as_array
        from snowmelt.models.zipformer.packing_kernels import running_mean_gradient

        grad = grad_outputs[0].contiguous()
        grad_x = torch.empty_like(grad)
        running_mean_gradient(as_array(grad.squeeze(1)), ctx.slots, as_array(grad_x.squeeze(1)))
        return grad_x, None
