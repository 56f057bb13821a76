"""How do other runtimes see a stream's state? As icefall's flat list of tensors.

The list holds seven groups, each with one entry a stack: cached_len (M, N), cached_avg (M, N, C),
cached_key (M, L, N, A), cached_val and cached_val2 (M, L, N, A / 2), cached_conv1 and cached_conv2
(M, N, C, K - 1).

Invariant: nothing is lost either way while a stream runs; the total of 20 ms frames is taken from
the first stack's count, which is rounded up once a stream has ended inside a chunk.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from snowmelt.models.zipformer.caches import StackState, ZipformerState

__all__ = [
    "STATE_BATCH_AXES",
    "STATE_NAMES",
    "flat_to_state",
    "stack_flat_states",
    "state_to_flat",
    "unstack_flat_states",
]

# Names of the seven groups, and the axis of the streams in each.
STATE_NAMES: Final = ("len", "avg", "key", "val", "val2", "conv1", "conv2")
STATE_BATCH_AXES: Final = (1, 1, 2, 2, 2, 1, 1)


def state_to_flat(state: ZipformerState) -> list[Tensor]:
    """The flat list of a state."""
    stacks = state.stacks
    return [
        *(s.frames_seen.expand(s.average.size(1), -1) for s in stacks),
        *(s.average.transpose(0, 1) for s in stacks),
        *(s.key.permute(1, 2, 0, 3) for s in stacks),
        *(s.value.permute(1, 2, 0, 3) for s in stacks),
        *(s.value2.permute(1, 2, 0, 3) for s in stacks),
        *(s.conv1.permute(1, 0, 3, 2) for s in stacks),
        *(s.conv2.permute(1, 0, 3, 2) for s in stacks),
    ]


def flat_to_state(flat: Sequence[Tensor], first_downsampling: int) -> ZipformerState:
    """The state of a flat list.

    Args:
        flat: seven groups of one tensor a stack.
        first_downsampling: ds of the first stack.
    """
    num_stacks = len(flat) // len(STATE_BATCH_AXES)
    stacks = []
    for i in range(num_stacks):
        seen, average, key, value, value2, conv1, conv2 = flat[i::num_stacks]
        stacks.append(
            StackState(
                frames_seen=seen[0],
                average=average.transpose(0, 1),
                key=key.permute(2, 0, 1, 3),
                value=value.permute(2, 0, 1, 3),
                value2=value2.permute(2, 0, 1, 3),
                conv1=conv1.permute(1, 0, 3, 2),
                conv2=conv2.permute(1, 0, 3, 2),
            )
        )
    return ZipformerState(stacks[0].frames_seen * first_downsampling, tuple(stacks))


def stack_flat_states(states: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """One flat list with the streams of all `states`, in their order."""
    num_stacks = len(states[0]) // len(STATE_BATCH_AXES)
    return [
        torch.cat(tensors, dim=STATE_BATCH_AXES[i // num_stacks])
        for i, tensors in enumerate(zip(*states, strict=True))
    ]


def unstack_flat_states(flat: Sequence[Tensor]) -> list[list[Tensor]]:
    """One flat list a stream, each tensor of size 1 along the axis of the streams."""
    num_stacks = len(flat) // len(STATE_BATCH_AXES)
    parts = [x.split(1, dim=STATE_BATCH_AXES[i // num_stacks]) for i, x in enumerate(flat)]
    return [list(stream) for stream in zip(*parts, strict=True)]
