"""snowmelt: streaming speech recognition with Zipformer and LSTM transducers.

What may a user import? The names in `__all__`. Everything else may change with any release.

Invariant: importing this package loads neither torch nor numpy; a name is loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from snowmelt._version import __version__

if TYPE_CHECKING:
    from snowmelt.runtime.load import load_model
    from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer

__all__ = ["OfflineRecognizer", "OnlineRecognizer", "__version__", "load_model"]

_HOME_OF: Final = {
    "load_model": "snowmelt.runtime.load",
    "OnlineRecognizer": "snowmelt.runtime.recognizer",
    "OfflineRecognizer": "snowmelt.runtime.recognizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'snowmelt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next access is an ordinary attribute
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
