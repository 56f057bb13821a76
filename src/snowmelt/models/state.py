"""How are the states of many streams put into one batch and taken apart again?

A state is a NamedTuple of tensors, of tuples of them or of further NamedTuples; the first axis of
every tensor is the stream.

Invariant: `unstack_states(stack_states(states))` gives `states` back; nothing here knows a model.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["stack_states", "state_to", "unstack_states"]

StateT = TypeVar("StateT", bound=tuple[Any, ...])


def stack_states(states: Sequence[StateT]) -> StateT:
    """One state with the streams of all `states`, in their order.

    Args:
        states: at least one; all of the same structure.
    """
    return cast(StateT, _map(lambda *tensors: torch.cat(tensors), *states))


def unstack_states(state: StateT) -> list[StateT]:
    """One state a stream; the tensors are views, so the batch lives as long as one of them."""
    num_streams = _first_tensor(state).size(0)
    return [cast(StateT, _map(lambda x, n=n: x[n : n + 1], state)) for n in range(num_streams)]


def state_to(state: StateT, device: torch.device | str) -> StateT:
    """The same state on another device."""
    return cast(StateT, _map(lambda x: x.to(device), state))


def _map(function: Callable[..., Tensor], *states: Any) -> Any:
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    parts = [_map(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def _first_tensor(state: Any) -> Tensor:
    return state if isinstance(state, Tensor) else _first_tensor(state[0])
