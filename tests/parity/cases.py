"""What is in a directory of golden cases, and what does a reference in a case stand for?

A case is `<area>/<case>/case.json`, with its tensors in `tensors.safetensors` beside it; lists of
state-dict keys are `keys/<name>.json`. A path inside a case is resolved against its set's root.

Invariant: reads files, builds and calls nothing. tests/parity/README.md describes the format.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

__all__ = ["Case", "Run", "find_cases"]


@dataclass(frozen=True)
class Case:
    """One case: what to build, and the tensors that go in and come out."""

    root: Path
    path: Path
    content: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        directory = self.path.parent if self.path.name == "case.json" else self.path
        return directory.relative_to(self.root).with_suffix("").as_posix()

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        path = self.path.parent / "tensors.safetensors"
        return safetensors.torch.load_file(path) if path.exists() else {}

    def runs(self) -> list["Run"]:
        # A list of keys is a case of one run.
        runs = self.content.get("runs", [{"name": "keys"}])
        return [Run(self, content) for content in runs]

    def other(self, name: str) -> "Case":
        return _read_case(self.root, self.root / name / "case.json")

    def tensors_with(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names begin with `prefix`, without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def resolve(self, reference: Any) -> Any:
        """The value a reference stands for: tensors, lists and dictionaries of them, JSON values.

        A reference to streaming states gives the golden states to go on from, or None, and the
        number of streams that join: `{"golden": [...], "new_streams": n}`. Each step is thus
        tested alone; that the steps fit together follows, since all states are compared too.
        """
        if reference is None:
            return None
        if isinstance(reference, str):
            return self.tensors[reference]
        if isinstance(reference, list):
            return [self.resolve(part) for part in reference]
        if "from_run" in reference:
            return {
                "golden": self.resolve(reference["tensors"]),
                "new_streams": reference["new_streams"],
            }
        if "value" in reference:
            return reference["value"]
        if "zeros" in reference:
            return torch.zeros(reference["zeros"])
        if "file" in reference:
            return self.path.parent / reference["file"]
        if "prefix" in reference:
            return self.tensors_with(reference["prefix"])
        if "tensor" in reference:
            return _part(self.tensors[reference["tensor"]], reference)
        return {name: self.resolve(part) for name, part in reference.items()}


@dataclass(frozen=True)
class Run:
    """One run of a case: built, called and compared on its own."""

    case: Case
    content: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def id(self) -> str:
        return f"{self.case.name}:{self.name}"

    @property
    def call(self) -> str:
        return str(self.content.get("method") or self.content["call"])

    @property
    def compat(self) -> bool:
        return bool(self.content.get("compat", self.case.content.get("compat", False)))

    @property
    def params(self) -> dict[str, Any]:
        return {**self.case.content.get("params", {}), **self.content.get("params", {})}

    @property
    def outputs(self) -> dict[str, Any]:
        """Result name -> reference; without the results that are not to be compared."""
        outputs = self.content.get("outputs", {})
        skipped = self.content.get("skip_outputs", {})
        return {name: reference for name, reference in outputs.items() if name not in skipped}

    @property
    def input_references(self) -> dict[str, Any]:
        return dict(self.content.get("inputs", {}))

    def inputs(self) -> dict[str, Any]:
        return {name: self.case.resolve(ref) for name, ref in self.input_references.items()}

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the module of this run."""
        state_dict: dict[str, Tensor] = {}
        for source in self.content.get("weights", self.case.content.get("weights", [])):
            case = self.case.other(source["case"]) if source.get("case") else self.case
            for key, tensor in case.tensors_with(source["prefix"]).items():
                state_dict[source["key_prefix"] + key] = tensor
        return state_dict

    def tolerance(self, output: str) -> Any:
        own = self.content.get("tolerance", {})
        return own[output] if output in own else self.case.content["tolerance"]


def find_cases(root: Path) -> Iterator[Case]:
    """Every case below `root`, in the order of their names."""
    for path in sorted([*root.glob("*/*/case.json"), *root.glob("keys/*.json")]):
        yield _read_case(root, path)


_CACHE: dict[Path, Case] = {}


def _read_case(root: Path, path: Path) -> Case:
    if path not in _CACHE:
        _CACHE[path] = Case(root, path, json.loads(path.read_text(encoding="utf-8")))
    return _CACHE[path]


def _part(tensor: Tensor, reference: dict[str, Any]) -> Tensor:
    if "select" in reference:
        return torch.stack(
            [tensor[part["row"], part["start"] : part["stop"]] for part in reference["select"]]
        )
    if "index" in reference:
        return tensor.select(reference["axis"], reference["index"])
    if "start" in reference:
        length = reference["stop"] - reference["start"]
        return tensor.narrow(reference["axis"], reference["start"], length)
    if "unsqueeze" in reference:
        tensor = tensor.unsqueeze(reference["unsqueeze"])
        sizes = reference["expand_to"]
        return tensor.expand(*sizes, *tensor.shape[len(sizes) :])
    return tensor
