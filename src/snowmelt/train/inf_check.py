"""Where does the first infinity or NaN of a batch come from? The watch behind --inf-check.

Modules report in the order in which they are computed, inner ones first, so the first line of a
batch names the culprit: of the forward pass by an `output`, of the backward pass by a `grad`.

Invariant: every name is reported at most once per batch; looking changes no number.

Source: icefall, icefall/hooks.py (the wording of the lines).
"""

import logging
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from snowmelt.train.watch import watch_tensors

__all__ = ["InfCheck"]

_logger = logging.getLogger(__name__)


class InfCheck:
    """Warns of module outputs, their gradients and gradients of parameters that are not finite.

    A batch begins with each forward pass of `model`. Every look waits for the device, which on a
    GPU takes away much of its speed.

    Args:
        model: the module whose forward is called once per batch.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2)
        >>> with InfCheck(model):
        ...     loss = model(torch.ones(1, 2)).sum()
    """

    def __init__(self, model: nn.Module) -> None:
        self._reported: set[str] = set()
        self._batch_hook = model.register_forward_pre_hook(self._begin_batch)
        self._stop = watch_tensors(model, self._look)

    def remove(self) -> None:
        """End the watch."""
        self._batch_hook.remove()
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _begin_batch(self, module: nn.Module, inputs: Any) -> None:
        self._reported.clear()

    def _look(self, name: str, tensor: Tensor) -> None:
        if name in self._reported or _has_finite_sum(tensor):
            return
        is_first = not self._reported
        self._reported.add(name)
        _logger.warning(
            "The sum of %s is not finite%s", name, " (the first of this batch)" if is_first else ""
        )


def _has_finite_sum(tensor: Tensor) -> bool:
    # One pass without a temporary; in float32, because the sum of many float16 numbers overflows.
    is_double = tensor.dtype == torch.float64
    total = tensor.sum(dtype=torch.float64 if is_double else torch.float32)
    return bool(total.isfinite())
