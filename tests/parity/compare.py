"""Does a result agree with the golden value?

Integers, booleans, strings and shapes must be equal whatever the tolerance says; numbers with a
fraction may differ by the stated tolerance. Equal infinities are equal; NaN is equal to nothing.

Invariant: a difference is reported with its place and size, never only as "not equal".
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.cases import Run

__all__ = ["differences"]


def differences(run: Run, name: str, actual: Any) -> list[str]:
    """What is wrong with result `name` of a run; empty if it agrees."""
    expected = run.case.resolve(run.outputs[name])
    tolerance = run.tolerance(name)
    valid = run.content.get("valid", {}).get(name)
    if isinstance(expected, Path):
        # Files are compared by the adapter of their kind; it hands over its own text.
        expected = expected.read_text(encoding="utf-8")
    if run.content.get("compare") == "fst_text":
        actual, expected = _fst_fields(actual), _fst_fields(expected)
    if valid is not None and "indexes" in valid:
        actual, expected = (_rows(value, valid["indexes"]) for value in (actual, expected))
        valid = None
    return _Comparison(run, tolerance, valid).compare(name, actual, expected)


def _rows(value: Any, indexes: list[int]) -> Any:
    return value[indexes] if isinstance(value, Tensor) else [value[index] for index in indexes]


def _fst_fields(text: str) -> list[list[int | float]]:
    """The lines of OpenFst's text form; states and labels are integers, the weight is a number."""
    rows: list[list[int | float]] = []
    for fields in filter(None, map(str.split, text.splitlines())):
        num_integers = 4 if len(fields) > 3 else 1
        rows.append([*map(int, fields[:num_integers]), *map(float, fields[num_integers:])])
    return rows


class _Comparison:
    def __init__(self, run: Run, tolerance: Any, valid: dict[str, Any] | None) -> None:
        self.run = run
        self.tolerance = tolerance
        self.valid = valid

    def compare(self, where: str, actual: Any, expected: Any) -> list[str]:
        if isinstance(expected, Tensor):
            return self._compare_tensors(where, actual, expected)
        if isinstance(actual, Tensor | np.ndarray):
            # A golden JSON value holds what .tolist() gives.
            actual = actual.tolist()
        if isinstance(expected, dict):
            if set(actual) != set(expected):
                return [f"{where}: keys differ: {sorted(set(actual) ^ set(expected))}"]
            return [
                line
                for key in expected
                for line in self.compare(f"{where}[{key!r}]", actual[key], expected[key])
            ]
        if isinstance(expected, list):
            if len(actual) != len(expected):
                return [f"{where}: {len(actual)} entries, expected {len(expected)}: {actual}"]
            return [
                line
                for i, (a, b) in enumerate(zip(actual, expected, strict=True))
                for line in self.compare(f"{where}[{i}]", a, b)
            ]
        if isinstance(expected, float) and self.tolerance != "exact":
            return self._compare_tensors(
                where,
                torch.tensor(actual, dtype=torch.float64),
                torch.tensor(expected, dtype=torch.float64),
            )
        return [] if actual == expected else [f"{where}: {actual!r}, expected {expected!r}"]

    def _compare_tensors(self, where: str, actual: Any, expected: Tensor) -> list[str]:
        if not isinstance(actual, Tensor):
            actual = torch.as_tensor(np.asarray(actual))
        if actual.shape != expected.shape:
            return [f"{where}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"]
        # What is averaged goes into files: there the type itself is part of the contract.
        is_stored = self.run.case.kind == "optim.averaging"
        if actual.is_floating_point() != expected.is_floating_point() or (
            is_stored and actual.dtype != expected.dtype
        ):
            return [f"{where}: type {actual.dtype}, expected {expected.dtype}"]
        actual = actual.detach().cpu()
        if self.valid is not None:
            is_valid = self._valid_mask(expected)
            actual, expected = actual[is_valid], expected[is_valid]
        if not expected.is_floating_point() or self.tolerance == "exact":
            is_close = actual == expected
            bound: Tensor | float = 0.0
        else:
            actual, expected = actual.double(), expected.double()
            bound = self._bound(expected)
            is_close = (actual == expected) | (
                actual.isfinite() & expected.isfinite() & ((actual - expected).abs() <= bound)
            )
        if bool(is_close.all()):
            return []
        num_wrong = int((~is_close).sum())
        error = (actual.double() - expected.double()).abs()
        worst = int(torch.where(is_close, -torch.inf, error.nan_to_num(torch.inf)).argmax())
        return [
            f"{where}: {num_wrong} of {is_close.numel()} values differ; worst at flat index {worst}"
            f": {actual.flatten()[worst].item()}, expected {expected.flatten()[worst].item()}"
            f" (tolerance {self.tolerance}, largest expected"
            f" {expected.double().abs().max().item():.3g})"
        ]

    def _bound(self, expected: Tensor) -> Tensor | float:
        tolerance = self.tolerance
        if "rel_to_max" in tolerance:
            largest = float(expected.abs().max()) if expected.numel() else 0.0
            return float(tolerance["rel_to_max"]) * largest + float(tolerance["atol"])
        if "rel_to_tensor" in tolerance:
            scale = self.run.case.tensors[tolerance["rel_to_tensor"]].double().abs()
            return float(tolerance["factor"]) * scale + float(tolerance["atol"])
        return float(tolerance["atol"]) + float(tolerance["rtol"]) * expected.abs()

    def _valid_mask(self, expected: Tensor) -> Tensor:
        """Bool, shape of `expected`: time index < length of the utterance."""
        assert self.valid is not None
        batch_axis, time_axis = self.valid["batch_axis"], self.valid["time_axis"]
        lens = torch.as_tensor(self.run.case.resolve(self.valid["lens"]))
        times = torch.arange(expected.size(time_axis))
        shape = [1] * expected.dim()
        shape[batch_axis] = -1
        lens = lens.reshape(shape)
        shape[batch_axis], shape[time_axis] = 1, -1
        return (times.reshape(shape) < lens).expand_as(expected)
