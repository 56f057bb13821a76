"""When is machine code that an earlier run left behind still that of the source?

numba looks at the file of the compiled function alone. Code of the functions that it calls is part
of the result, so their files count here, too.

Invariant: machine code is used again only if every file it was made from is as it was then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numba
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

__all__ = ["InTree", "UserProvided", "UserWide", "counts_callees"]


class _CountsCallees:
    """A place for machine code, whose stamp names all files it is made from."""

    _callees: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> Any:
        """The place for a function's machine code; None where this kind of place cannot be."""
        locator: Any = super().from_function(py_func, py_file)  # type: ignore[misc]
        if locator is not None:
            # A function's callees are there when it is defined: its file has imported them.
            files = sorted(_files_of_callees(py_func, set()) - {py_file})
            locator._callees = tuple((file, type(locator)(py_func, file)) for file in files)
        return locator

    def get_source_stamp(self) -> Any:
        """Equal if and only if nothing has changed."""
        own: Any = super().get_source_stamp()  # type: ignore[misc]
        # Callees are asked as files only, whose callees were already counted.
        return own, tuple((file, place.get_source_stamp()) for file, place in self._callees)


class UserProvided(_CountsCallees, UserProvidedCacheLocator):
    """The folder that NUMBA_CACHE_DIR names."""


class InTree(_CountsCallees, InTreeCacheLocator):
    """Beside the source."""


class UserWide(_CountsCallees, UserWideCacheLocator):
    """In the user's folder for caches."""


_PLACES: Final = ",".join(f"{__name__}.{cls.__name__}" for cls in (UserProvided, InTree, UserWide))


@contextmanager
def counts_callees() -> Iterator[None]:
    """Functions that are given to numba meanwhile have their callees' files looked at, too."""
    config: Any = numba.config  # its names are made when it is loaded
    before = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = _PLACES
    try:
        yield
    finally:
        config.CACHE_LOCATOR_CLASSES = before


def _files_of_callees(function: Callable[..., object], seen: set[int]) -> set[str]:
    """Files of all compiled functions that a function calls, directly or not."""
    files: set[str] = set()
    names = function.__code__.co_names
    for callee in (function.__globals__.get(name) for name in names):
        inner = getattr(callee, "py_func", None)
        if inner is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        files |= {inner.__code__.co_filename} | _files_of_callees(inner, seen)
    return files
