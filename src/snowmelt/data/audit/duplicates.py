"""Which utterances are the same sound?

Two are the same if their samples are, whatever lossless format they are in; or if they are equally
long and their energies over time and frequency are nearly the same, as those of a copy that was
compressed or made louder.

Invariant: the first of several equal utterances is the original, the others are its copies.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from snowmelt.data.audit.sound import FINGERPRINT_SIZE, SoundFacts

__all__ = ["same_sounds"]

# A compressed copy may be longer by a part of its last packet.
_SAME_LENGTH_S: Final = 0.02

# Utterances compared at once: the table of their correlations stays at some megabytes.
_BLOCK: Final = 1024


def same_sounds(
    sounds: Sequence[SoundFacts], durations: Sequence[float], *, min_similarity: float
) -> list[tuple[int, int]]:
    """Pairs (copy, original) of positions, one for each copy, in order.

    Args:
        sounds: utterances that could be read.
        durations: their seconds.
        min_similarity: correlation of two fingerprints from which they are one.
    """
    original: dict[int, int] = {}
    first_of: dict[str, int] = {}
    for n, sound in enumerate(sounds):
        first = first_of.setdefault(sound.digest, n)
        if first != n:
            original[n] = first
    for a, b in _similar(sounds, durations, min_similarity):
        earlier, later = min(a, b), max(a, b)
        original.setdefault(later, original.get(earlier, earlier))
    return sorted(original.items())


def _similar(
    sounds: Sequence[SoundFacts], durations: Sequence[float], min_similarity: float
) -> Iterator[tuple[int, int]]:
    """Pairs of about equal length whose fingerprints agree; sorted by the earlier of the two."""
    order = [n for n in np.argsort(durations, kind="stable") if sounds[n].fingerprint is not None]
    lens = np.array([durations[n] for n in order])
    pairs = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        # Sorted by length: those that are equally long follow.
        end = int(np.searchsorted(lens, lens[start + len(block) - 1] + _SAME_LENGTH_S, "right"))
        others = order[start:end]
        similarity = _stack(sounds, block) @ _stack(sounds, others).T
        gaps = np.abs(lens[start : start + len(block), None] - lens[None, start:end])
        for i, j in np.argwhere((similarity >= min_similarity) & (gaps <= _SAME_LENGTH_S)):
            if i < j:
                pairs.append((min(block[i], others[j]), max(block[i], others[j])))
    yield from sorted(pairs)


def _stack(sounds: Sequence[SoundFacts], which: Sequence[int]) -> np.ndarray[tuple[int, int]]:
    """(M, FINGERPRINT_SIZE) float32."""
    rows = np.empty((len(which), FINGERPRINT_SIZE), np.float32)
    for row, n in zip(rows, which, strict=True):
        row[:] = sounds[n].fingerprint
    return rows
