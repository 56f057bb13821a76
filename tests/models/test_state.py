"""Batches of states, apart and together again."""

from typing import NamedTuple

import torch
from torch import Tensor

from snowmelt.models.state import stack_states, state_to, unstack_states


class Inner(NamedTuple):
    a: Tensor
    b: Tensor


class Outer(NamedTuple):
    count: Tensor
    parts: tuple[Inner, ...]


def _state(num_streams: int, offset: float) -> Outer:
    inner = [
        Inner(torch.full((num_streams, 2), offset + i), torch.full((num_streams, 3, 1), offset - i))
        for i in range(2)
    ]
    return Outer(torch.arange(num_streams), tuple(inner))


def _equal(x: Outer, y: Outer) -> bool:
    tensors = [[s.count, *(t for inner in s.parts for t in inner)] for s in (x, y)]
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_unstack_is_the_inverse_of_stack() -> None:
    states = [_state(1, 0.0), _state(1, 5.0), _state(1, 7.0)]
    batch = stack_states(states)
    assert isinstance(batch, Outer) and isinstance(batch.parts[1], Inner)
    assert batch.parts[0].b.shape == (3, 3, 1)
    for state, again in zip(states, unstack_states(batch), strict=True):
        assert _equal(state, again)


def test_states_of_many_streams_stack_in_order() -> None:
    batch = stack_states([_state(2, 1.0), _state(1, 2.0)])
    assert batch.count.tolist() == [0, 1, 0]
    assert batch.parts[0].a[:, 0].tolist() == [1.0, 1.0, 2.0]


def test_a_state_moves_to_a_device_as_a_whole() -> None:
    moved = state_to(_state(1, 0.0), "meta")
    assert moved.count.is_meta and moved.parts[1].b.is_meta
