"""How is a loop over arrays compiled for the CPU?

Invariant: a function computes the same with and without its compiler, up to the order of sums where
that is set free; only the time differs.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
from numba.extending import intrinsic

from snowmelt.core.compiled_cache import counts_callees

__all__ = ["compiled", "compiled_with", "inlined_with", "written_in_llvm"]

_Function = TypeVar("_Function", bound=Callable[..., object])

_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}


def compiled(function: _Function) -> _Function:
    """Compile with numba at the first call, once a machine where the cache folder can be written.

    Strict IEEE arithmetic, in the order written: infinities mean something, and a sum must not
    depend on how many values were added beside it.
    """
    return compiled_with()(function)


def compiled_with(*fastmath: str) -> Callable[[_Function], _Function]:
    """As `compiled`, with freedoms of LLVM: "contract" (a * b + c rounded once), "reassoc", …"""

    def compile_function(function: _Function) -> _Function:
        try:
            with counts_callees():
                return _compile(function, fastmath, cache=True)
        except RuntimeError:  # no place for the cache: installation and home are both read-only
            return _compile(function, fastmath)

    return compile_function


def inlined_with(*fastmath: str) -> Callable[[_Function], _Function]:
    """Compile into the functions that call it."""
    return lambda function: _compile(function, fastmath, inline="always")


def written_in_llvm(function: _Function) -> Any:
    """An instruction that numba has no word for: the function writes its code."""
    return intrinsic(function)


def _compile(function: _Function, fastmath: tuple[str, ...], **options: Any) -> _Function:
    result: _Function = numba.njit(fastmath=set(fastmath), **options, **_OPTIONS)(function)
    return result
