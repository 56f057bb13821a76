"""How are the features of thousands of cuts stored? As rows of plain .npy files, in half precision.

A file holds one matrix (rows, bins) of float16; a cut's features are rows start ... stop - 1 of it,
which its manifest says as the storage key "start,stop". Files are mapped into memory: only what is
asked for is read. numpy alone can read them; importing this module lets lhotse do so too.

Invariant: a file is whole or not there, and its bytes are a function of the features.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lhotse.features.io import FeaturesReader, register_reader

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path

__all__ = ["STORAGE_TYPE", "FeatureRowsReader", "rows_file_size", "rows_key", "write_rows"]

STORAGE_TYPE: Final = "snowmelt_rows"
"""What manifests say as `storage_type`."""

_DTYPE: Final = np.dtype("<f2")
_KEY: Final = re.compile(r"(\d+),(\d+)")


def rows_key(start: int, num_frames: int) -> str:
    """The storage key of features that begin at row `start`."""
    return f"{start},{start + num_frames}"


def rows_file_size(num_rows: int, num_bins: int) -> int:
    """Bytes of a whole file."""
    return len(_header(num_rows, num_bins)) + num_rows * num_bins * _DTYPE.itemsize


def write_rows(
    path: Path, features: Iterable[npt.NDArray[np.float32]], num_rows: int, num_bins: int
) -> None:
    """Write matrices below one another; memory holds one of them at a time.

    Args:
        path: the file, which appears when it is whole.
        features: matrices (T, num_bins).
        num_rows: sum of all T.
        num_bins: columns.

    Raises:
        DataError: there are other rows than promised.
        UserError: the file cannot be written.
    """
    written = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(num_rows, num_bins))
        for matrix in features:
            file.write(matrix.astype(_DTYPE).tobytes())
            written += len(matrix)
        if written != num_rows:
            raise DataError(f"{path} should get {num_rows} rows of features, not {written}")


@register_reader
class FeatureRowsReader(FeaturesReader):  # type: ignore[misc]  # lhotse has no types
    """What lhotse calls to read stored features.

    Args:
        storage_path: the file.
    """

    name = STORAGE_TYPE

    def __init__(self, storage_path: str | Path, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._path = Path(storage_path)

    def read(
        self, key: str, left_offset_frames: int = 0, right_offset_frames: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Features of a cut, or some of its frames: (T, bins) float32.

        Raises:
            DataError: the key is none, or the file has fewer rows.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise DataError(f"{key!r} names no rows of {self._path}")
        start, stop = int(match[1]), int(match[2])
        rows = np.load(self._path, mmap_mode="r", allow_pickle=False)
        if rows.ndim != 2 or not start <= stop <= len(rows):
            raise DataError(f"{self._path} has no rows {start} to {stop}")
        wanted: npt.NDArray[np.float32] = rows[start:stop][
            left_offset_frames:right_offset_frames
        ].astype(np.float32)
        return wanted


def _header(num_rows: int, num_bins: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": _DTYPE.str, "fortran_order": False, "shape": (num_rows, num_bins)}
    )
    return header.getvalue()
