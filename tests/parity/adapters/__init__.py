"""One adapter per kind of case: builds what the case describes, calls it, names the results.

An adapter takes a `Run` and returns result name -> value. It knows both worlds: the argument names
of the cases, which are the original's, and the interfaces of snowmelt.
"""

import importlib
from collections.abc import Callable
from typing import Any

from tests.parity.cases import Run

__all__ = ["adapter_for"]

Adapter = Callable[[Run], dict[str, Any]]

_MODULES = (
    "scaling",
    "transducer_parts",
    "zipformer",
    "lstm",
    "loss",
    "optim",
    "features",
    "search",
    "wer",
    "lang",
)


def adapter_for(kind: str) -> Adapter | None:
    """The adapter of a kind, or None if nothing of this kind is built yet."""
    return _adapters().get(kind)


def _adapters() -> dict[str, Adapter]:
    adapters: dict[str, Adapter] = {}
    for module in _MODULES:
        adapters.update(importlib.import_module(f"tests.parity.adapters.{module}").KINDS)
    return adapters
