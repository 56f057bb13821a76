"""The flat list of other runtimes."""

import torch

from snowmelt.models.zipformer.caches import StackState, ZipformerState
from snowmelt.models.zipformer.flat_state import (
    flat_to_state,
    stack_flat_states,
    state_to_flat,
    unstack_flat_states,
)


def _state(num_streams: int) -> ZipformerState:
    stacks = []
    for layers, channels, left in [(2, 4, 8), (3, 6, 4)]:
        head = num_streams, layers
        stacks.append(
            StackState(
                torch.full((num_streams,), 2 * left),
                torch.randn(*head, channels),
                torch.randn(*head, left, 2 * channels),
                torch.randn(*head, left, channels),
                torch.randn(*head, left, channels),
                torch.randn(*head, 3, channels),
                torch.randn(*head, 3, channels),
            )
        )
    return ZipformerState(torch.full((num_streams,), 16), tuple(stacks))


def test_shapes_are_those_of_the_original() -> None:
    flat = state_to_flat(_state(5))
    assert [tuple(x.shape) for x in flat] == [
        (2, 5),
        (3, 5),
        (2, 5, 4),
        (3, 5, 6),
        (2, 8, 5, 8),
        (3, 4, 5, 12),
        (2, 8, 5, 4),
        (3, 4, 5, 6),
        (2, 8, 5, 4),
        (3, 4, 5, 6),
        (2, 5, 4, 3),
        (3, 5, 6, 3),
        (2, 5, 4, 3),
        (3, 5, 6, 3),
    ]


def test_there_and_back() -> None:
    state = _state(2)
    again = flat_to_state(state_to_flat(state), first_downsampling=1)
    assert torch.equal(again.num_frames, state.num_frames)
    for a, b in zip(again.stacks, state.stacks, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_flat_states_stack_along_the_streams() -> None:
    states = [state_to_flat(_state(1)) for _ in range(3)]
    batch = stack_flat_states(states)
    assert batch[4].shape == (2, 8, 3, 8)
    for state, again in zip(states, unstack_flat_states(batch), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(state, again, strict=True))
