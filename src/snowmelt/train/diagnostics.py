"""How large are the numbers inside a model that learns? The table of --print-diagnostics.

For every module's outputs, their gradients, the parameters and their gradients, and for every
dimension of these tensors with more than ten places, each place gets its own statistics over all
other dimensions and all batches; the table shows how they are spread over the places:

    abs       mean of |x|                    a channel that is dead, or far too loud
    positive  share of x > 0                 a channel that never or always fires
    value     mean of x
    rms       root of the mean of x²
    min, max  extremes
    eigs      eigenvalues of the mean of x xᵀ (up to 512 places): how many directions are used

A dimension whose length differs between batches (utterances, time) has no places to speak of and
is left out.

Invariant: looking changes no number; what is kept grows with the model, not with the number or
length of the batches.

Source: icefall, icefall/diagnostics.py (what is measured).
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor, nn

from snowmelt.train.watch import watch_tensors

__all__ = ["Diagnostics"]

# Fewer places say little about a spread. 31 is the length of a convolution kernel.
_MIN_SIZE: Final = 11
_SKIPPED_SIZE: Final = 31
_MAX_EIGEN_SIZE: Final = 512
# Elements of all matrices x xᵀ together: 1 GiB in float32. A full-size Zipformer needs less.
_MAX_MOMENT_ELEMENTS: Final = 2**28

_PERCENTILES: Final = range(0, 101, 10)

# The size of a dimension that had several.
_VARIES: Final = -1


class Diagnostics:
    """Collects statistics of a model's tensors from its construction until `remove`.

    Args:
        model: the module that training calls.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(16, 2)
        >>> with Diagnostics(model) as diagnostics:
        ...     model(torch.ones(4, 16)).sum().backward()
        >>> "weight.param_grad" in diagnostics.report()
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        # By name, number of dimensions, dimension: a module may be called in several ways.
        self._places: dict[tuple[str, int, int], _Places] = {}
        self._sizes: dict[tuple[str, int, int], int] = {}
        self._seen: set[str] = set()
        self._moment_elements_left = _MAX_MOMENT_ELEMENTS
        self._is_complete = True
        self._stop = watch_tensors(model, self._look)

    def remove(self) -> None:
        """End the collection; `report` still works."""
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

    def report(self) -> str:
        """The table, sorted by name, and below it what could not be measured.

        Parameters are measured now, all else was when it was computed. Gradients are those of the
        loss as it was differentiated: with float16 they are multiplied by the loss scale.
        """
        rows = [row for key, places in self._places.items() for row in places.rows(key)]
        for name, parameter in self._model.named_parameters():
            for dim, size in enumerate(parameter.shape):
                if _is_measured(size):
                    places = _Places(size, parameter.device, size <= _MAX_EIGEN_SIZE)
                    places.add(_by_place(parameter.detach(), dim))
                    rows.extend(places.rows((f"{name}.param", parameter.dim(), dim)))
        rows.sort(key=lambda row: row[0])  # the order of the statistics stays
        width = max((len(row[0]) for row in rows), default=0)
        head = ["dim", "size", "statistic", "mean", *(f"{p}%" for p in _PERCENTILES)]
        lines = [_line(width, "tensor", *head)]
        lines += [_line(width, name, *cells) for name, *cells in rows]
        lines += [f"no gradient: {name}" for name in self._without_gradient()]
        if not self._is_complete:
            lines.append("eigenvalues are incomplete: the model is too large for all of them")
        return "\n".join(lines)

    def _without_gradient(self) -> list[str]:
        learning = [name for name, p in self._model.named_parameters() if p.requires_grad]
        return sorted(name for name in learning if f"{name}.param_grad" not in self._seen)

    @torch.no_grad()
    def _look(self, name: str, tensor: Tensor) -> None:
        self._seen.add(name)
        for dim, size in enumerate(tensor.shape):
            key = (name, tensor.dim(), dim)
            if self._sizes.setdefault(key, size) != size:
                self._sizes[key] = _VARIES
                self._forget(key)
            elif _is_measured(size) and tensor.numel() > 0:
                if key not in self._places:
                    self._places[key] = _Places(size, tensor.device, self._take_moment(size))
                self._places[key].add(_by_place(tensor, dim))

    def _take_moment(self, size: int) -> bool:
        """Whether there is still room for one more matrix."""
        if size > _MAX_EIGEN_SIZE:
            return False
        has_room = size * size <= self._moment_elements_left
        self._is_complete &= has_room
        self._moment_elements_left -= size * size if has_room else 0
        return has_room

    def _forget(self, key: tuple[str, int, int]) -> None:
        places = self._places.pop(key, None)
        if places is not None and places.has_moment:
            self._moment_elements_left += places.size**2


class _Places:
    """Sums over everything but one dimension of a tensor."""

    def __init__(self, size: int, device: torch.device, has_moment: bool) -> None:
        self.size = size
        self.has_moment = has_moment
        self._count = 0
        self._abs, self._positive, self._value, self._square = torch.zeros(4, size, device=device)
        self._min = torch.full((size,), torch.inf, device=device)
        self._max = torch.full((size,), -torch.inf, device=device)
        self._moment = torch.zeros(size, size, device=device) if has_moment else None

    def add(self, values: Tensor) -> None:
        """Take in (M, size) float32 values."""
        self._count += len(values)
        self._abs += values.abs().sum(dim=0)
        self._positive += (values > 0).sum(dim=0)
        self._value += values.sum(dim=0)
        self._square += values.square().sum(dim=0)
        self._min = torch.minimum(self._min, values.amin(dim=0))
        self._max = torch.maximum(self._max, values.amax(dim=0))
        if self._moment is not None:
            # In place: autocast, in which outputs are shown, leaves such products alone.
            self._moment.addmm_(values.T, values)

    def rows(self, key: tuple[str, int, int]) -> Iterator[list[str]]:
        """One row of the table per statistic."""
        name, num_dims, dim = key
        statistics = {
            "abs": self._abs / self._count,
            "positive": self._positive / self._count,
            "value": self._value / self._count,
            "rms": (self._square / self._count).sqrt(),
            "min": self._min,
            "max": self._max,
        }
        if self._moment is not None:
            statistics["eigs"] = _eigenvalues(self._moment / self._count)
        for statistic, values in statistics.items():
            ordered = values.double().cpu().sort().values
            spread = [ordered[round(p / 100 * (self.size - 1))].item() for p in _PERCENTILES]
            numbers = [f"{number:.2e}" for number in (ordered.mean().item(), *spread)]
            yield [name, f"{dim}/{num_dims}", str(self.size), statistic, *numbers]


def _is_measured(size: int) -> bool:
    return size >= _MIN_SIZE and size != _SKIPPED_SIZE


def _by_place(tensor: Tensor, dim: int) -> Tensor:
    """(M, size) float32 values along a dimension of a tensor."""
    return tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim]).float()


def _eigenvalues(matrix: Tensor) -> Tensor:
    """(size,) of a symmetric (size, size) matrix; NaN where it is not finite."""
    matrix = matrix.double().cpu()
    values = torch.full((len(matrix),), torch.nan, dtype=torch.float64)
    if bool(matrix.isfinite().all()):
        torch.linalg.eigvalsh(matrix, out=values)
    return values


def _line(width: int, name: str, dim: str, size: str, statistic: str, *numbers: str) -> str:
    cells = [f"{number:>9}" for number in numbers]
    return " ".join([f"{name:<{width}}", f"{dim:>4}", f"{size:>5}", f"{statistic:<9}", *cells])
