"""How is a loop over arrays compiled for the CPU?

Invariant: a function computes the same with and without its compiler; only the time differs.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile with numba at the first call, once a machine where the cache folder can be written.

    Strict IEEE arithmetic, in the order written: infinities mean something, and a sum must not
    depend on how many values were added beside it.
    """

    def compile_function(*, cache: bool) -> _Function:
        decorator = numba.njit(cache=cache, nogil=True, error_model="numpy")
        return cast(_Function, decorator(function))

    try:
        return compile_function(cache=True)
    except RuntimeError:  # no place for the cache: installation and home are both read-only
        return compile_function(cache=False)
