"""How is one utterance read out of a shard? By its place in the file: nothing before it is read.

A shard is a tar file of lhotse's Shar format that holds the sound or the features of some hundred
utterances, and has `cuts.<number>.jsonl.gz` beside it. The manifest of the corpus names each
utterance's shard as its sound file (or feature storage), and as a key the place in it:
"<offset>,<bytes>,<crc32>". Importing this module lets lhotse read such features.

Invariant: what is returned are the bytes that were written, or an error that names the shard.
"""

import io
import re
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lhotse.cut import Cut, MonoCut
from lhotse.features.io import FeaturesReader, register_reader

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file

__all__ = [
    "SOUND_KEY",
    "STORAGE_TYPE",
    "ShardFeaturesReader",
    "member_key",
    "read_member",
    "shard_of",
    "sound_place",
]

STORAGE_TYPE: Final = "snowmelt_shard"
"""What manifests say as `storage_type` of features."""

SOUND_KEY: Final = "snowmelt_shard"
"""The custom field of a cut whose sound is in a shard: its key."""

_KEY: Final = re.compile(r"(\d+),(\d+),(\d+)")
_AGAIN: Final = "write it again: snowmelt prepare shar"


def member_key(offset: int, content: bytes) -> str:
    """The key of bytes that begin at `offset` of a shard."""
    return f"{offset},{len(content)},{zlib.crc32(content)}"


def read_member(path: Path, key: str) -> bytes:
    """The bytes at a place of a shard.

    Raises:
        DataError: the shard is missing or shorter, the bytes are others, or the key is none.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise DataError(f"{key!r} names no place in {path}", _AGAIN)
    offset, size, checksum = map(int, match.groups())
    require_file(path, "the shard", error=DataError, hint=_AGAIN)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise DataError(f"the shard {path} cannot be read: {error.strerror}", _AGAIN) from error
    if len(content) < size:
        raise DataError(
            f"the shard {path} is truncated: it ends before byte {offset + size}", _AGAIN
        )
    if zlib.crc32(content) != checksum:
        raise DataError(
            f"the shard {path} is damaged between bytes {offset} and {offset + size}", _AGAIN
        )
    return content


def sound_place(cut: Cut) -> str:
    """The key of a cut whose sound is in a shard; "" for any other."""
    return str((cut.custom or {}).get(SOUND_KEY, "")) if isinstance(cut, MonoCut) else ""


def shard_of(cut: Cut, *, has_stored_features: bool) -> str:
    """The shard that a cut is read from; "" if it is in none."""
    if has_stored_features:
        is_there = cut.has_features and cut.features.storage_type == STORAGE_TYPE
        return str(cut.features.storage_path) if is_there else ""
    return str(cut.recording.sources[0].source) if sound_place(cut) else ""


@register_reader
class ShardFeaturesReader(FeaturesReader):  # type: ignore[misc]  # lhotse has no types
    """What lhotse calls to read the features of a cut from a shard.

    Args:
        storage_path: the shard.
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
            DataError: as `read_member`.
        """
        rows = np.load(io.BytesIO(read_member(self._path, key)), allow_pickle=False)
        wanted: npt.NDArray[np.float32] = rows[left_offset_frames:right_offset_frames].astype(
            np.float32
        )
        return wanted
