"""How are millions of cuts had at hand without being in memory? In a file of lines, and by number.

A cut as an object takes kilobytes, in every process. A large manifest is unpacked once into a file
beside it; what is in memory is where each line begins, and that is mapped: all processes of a
machine share it. A cut is made when it is asked for and forgotten afterwards.

    <folder>/.cuts/<key>.jsonl      one cut a line
    <folder>/.cuts/<key>.npy        (N + 1,) int64, where lines begin; the last is the end

Invariant: a store is a function of its manifests, whose names, sizes and times are its key; it
gives the cuts that the manifests give, in their order.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, overload

import numpy as np
import numpy.typing as npt
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from snowmelt.core.files import atomic_path

__all__ = ["ChosenCuts", "CutSequence", "SpeedCopies", "StoredCuts", "as_sequence", "store_path"]

_FOLDER: Final = ".cuts"
# Changes when the same manifests would give other lines.
_LAYOUT: Final = 1


class CutSequence(Sequence[Cut]):
    """Cuts that are made when they are asked for."""

    def cut(self, number: int) -> Cut:
        """The cut at a place from 0 to the number of cuts - 1."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Cut: ...
    @overload
    def __getitem__(self, index: slice) -> "ChosenCuts": ...
    def __getitem__(self, index: int | slice) -> "Cut | ChosenCuts":
        if isinstance(index, slice):
            return ChosenCuts(self, np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.cut(index % len(self))

    def __iter__(self) -> Iterator[Cut]:
        return (self.cut(number) for number in range(len(self)))


class StoredCuts(CutSequence):
    """The cuts of a store.

    Args:
        path: its lines; see `store_path`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = np.load(path.with_suffix(".npy"), mmap_mode="r")
        with path.open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @classmethod
    def write(cls, path: Path, cuts: Iterable[Cut]) -> None:
        """Write a store; its index last, so that a store with an index is whole.

        Args:
            path: its lines.
            cuts: taken one by one.

        Raises:
            UserError: it cannot be written.
        """
        starts = [0]
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for cut in cuts:
                line = json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n"
                file.write(line)
                starts.append(starts[-1] + len(line))
        with atomic_path(path.with_suffix(".npy")) as temporary:
            np.save(temporary, np.asarray(starts, np.int64))

    @staticmethod
    def is_there(path: Path) -> bool:
        """Whether it has been written."""
        return path.exists() and path.with_suffix(".npy").exists()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def cut(self, number: int) -> Cut:
        """A cut, made of its line."""
        start, end = self._starts[number : number + 2].tolist()
        return deserialize_item(json.loads(self._lines[start:end]))


class ChosenCuts(CutSequence):
    """Some of the cuts of a sequence.

    Args:
        cuts: the sequence.
        numbers: (M,) of those that are chosen, in order.
    """

    def __init__(self, cuts: Sequence[Cut], numbers: npt.ArrayLike) -> None:
        self._cuts = cuts
        self._numbers = np.asarray(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def cut(self, number: int) -> Cut:
        """A cut of the sequence."""
        return self._cuts[int(self._numbers[number])]


class SpeedCopies(CutSequence):
    """The cuts of a sequence, then copies of all of them at each of some speeds.

    Args:
        cuts: the sequence.
        factors: how much faster the copies are played.
    """

    def __init__(self, cuts: Sequence[Cut], factors: Sequence[float]) -> None:
        self._cuts = cuts
        self._factors = factors

    def __len__(self) -> int:
        return len(self._cuts) * (1 + len(self._factors))

    def cut(self, number: int) -> Cut:
        """A cut as it is, or a copy without stored features."""
        copy, number = divmod(number, len(self._cuts))
        cut = self._cuts[number]
        if copy == 0:
            return cut
        sound = cut.drop_features() if cut.has_features else cut
        return sound.perturb_speed(self._factors[copy - 1])


def as_sequence(cuts: Iterable[Cut]) -> Sequence[Cut]:
    """Cuts by number: as they are if they are such a sequence, else in memory."""
    inner = cuts.cuts if isinstance(cuts, CutSet) else cuts
    return inner if isinstance(inner, CutSequence) else list(cuts)


def store_path(manifests: Sequence[Path]) -> Path:
    """Where the store of some manifests, one after the other, is or will be."""
    names = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in manifests]
    key = hashlib.sha256(json.dumps([_LAYOUT, names]).encode()).hexdigest()[:16]
    return manifests[0].parent / _FOLDER / f"{key}.jsonl"
