"""How is a file damaged? As disks, downloads and people do it.

Invariant: a function of the content and the generator; what comes out may by chance be healthy.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

__all__ = ["DAMAGES"]

_LFS_POINTER: Final = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
_TEXT: Final = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


def _flips(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to eight bits anywhere."""
    damaged = bytearray(content)
    for place in rng.integers(len(damaged), size=rng.integers(1, 9)):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _flips_at_an_end(content: bytes, rng: np.random.Generator) -> bytes:
    """The same in the first or last 200 bytes, where formats keep their tables."""
    if rng.integers(2):
        return _flips(content[:200], rng) + content[200:]
    return content[:-200] + _flips(content[-200:], rng)


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def _swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Three pieces, the last two in the wrong order."""
    a, b = sorted(rng.integers(len(content), size=2))
    return content[:a] + content[b:] + content[a:b]


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    """A block of random bytes inside."""
    begin = int(rng.integers(len(content)))
    size = int(rng.integers(1, min(512, len(content) - begin) + 1))
    return content[:begin] + rng.bytes(size) + content[begin + size :]


def _random(content: bytes, rng: np.random.Generator) -> bytes:
    """Nothing but noise, sometimes behind the format's first bytes."""
    kept = content[: 4 * int(rng.integers(2))]
    return kept + rng.bytes(int(rng.integers(1, 4096)))


def _empty(content: bytes, rng: np.random.Generator) -> bytes:
    return b""


def _text(content: bytes, rng: np.random.Generator) -> bytes:
    """What a server says in place of the file."""
    return _TEXT * int(rng.integers(1, 20))


def _lfs_pointer(content: bytes, rng: np.random.Generator) -> bytes:
    return _LFS_POINTER


DAMAGES: Final[dict[str, Callable[[bytes, np.random.Generator], bytes]]] = {
    "flips": _flips,
    "flips at an end": _flips_at_an_end,
    "truncated": _truncated,
    "swapped blocks": _swapped,
    "overwritten block": _overwritten,
    "random bytes": _random,
    "empty": _empty,
    "text": _text,
    "git-lfs pointer": _lfs_pointer,
}
