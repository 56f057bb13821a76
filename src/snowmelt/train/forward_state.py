"""What does a forward in training change, and how is that taken back?

Invariant: random numbers and gradients aside, all of it is in `ForwardState`; backward changes
nothing but gradients.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snowmelt.models.regularisers import MaxEig, regulariser_state

__all__ = ["ForwardState", "undisturbed"]


class ForwardState:
    """What a forward in training changes in a model, random numbers aside: its regularisers.

    They count and decide while the forward runs; backward changes nothing but gradients.

    Args:
        model: its modules must stay the same objects.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = dict(model.named_modules())
        # Found once: looking through all modules takes longer than reading the numbers.
        places = [key.rpartition(".") for key in regulariser_state(model)]
        self._numbers = [(modules[name], attribute) for name, _, attribute in places]
        self._max_eigs = [module for module in modules.values() if isinstance(module, MaxEig)]

    def copy(self) -> tuple[list[float], list[Tensor]]:
        """The state as it is now, for `restore`."""
        numbers = [getattr(module, attribute) for module, attribute in self._numbers]
        return numbers, [module.max_eig_direction.clone() for module in self._max_eigs]

    def restore(self, state: tuple[list[float], list[Tensor]]) -> None:
        """Put back what `copy` returned."""
        numbers, directions = state
        for (module, attribute), number in zip(self._numbers, numbers, strict=True):
            setattr(module, attribute, number)
        for max_eig, direction in zip(self._max_eigs, directions, strict=True):
            max_eig.max_eig_direction.copy_(direction)


@contextmanager
def undisturbed(objective: nn.Module) -> Iterator[None]:
    """Whatever forwards run inside, training goes on as if they had not been.

    Random numbers start where they are. Gradients are left alone: take them with
    `torch.autograd.grad`.
    """
    state = ForwardState(objective)
    before, draws = state.copy(), random.getstate()
    device = next(objective.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(draws)
        state.restore(before)
