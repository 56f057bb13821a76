"""How are manifests written so that the same content gives the same bytes, and read line by line?

Invariant: a manifest's bytes depend on its items alone: no time, no file name in the gzip header.
"""

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path, require_file

__all__ = ["ManifestWriter", "portable_path", "read_lines", "read_manifest", "write_manifest"]

# Twice as fast as the default, and a tenth larger.
_LEVEL: Final = 4


class ManifestWriter:
    """A manifest of JSON lines, gzip, that appears when the block ends without error.

    Args:
        path: the file to write.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            temporary = opening.enter_context(atomic_path(self._path))
            file = opening.enter_context(temporary.open("wb"))
            packed = gzip.GzipFile(
                filename="", mode="wb", fileobj=file, compresslevel=_LEVEL, mtime=0
            )
            opening.enter_context(packed)
            self._text = opening.enter_context(
                io.TextIOWrapper(packed, encoding="utf-8", newline="\n")
            )
            self._resources = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def write(self, item: Mapping[str, Any]) -> None:
        """Add an item."""
        self.write_line(json.dumps(item, ensure_ascii=False))

    def write_line(self, line: str) -> None:
        """Add a line, given without its end."""
        self._text.write(line + "\n")


def write_manifest(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole manifest.

    Raises:
        UserError: the file cannot be written.
    """
    with ManifestWriter(path) as writer:
        for item in items:
            writer.write(item)


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Items of a manifest of JSON lines, gzip.

    Raises:
        DataError: it is missing or damaged.
    """
    for line in read_lines(path):
        try:
            item = json.loads(line)
        except ValueError as error:
            raise _damaged(path, error) from error
        if not isinstance(item, dict):
            raise _damaged(path, TypeError("a line is no object"))
        yield item


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a manifest, gzip, with their ends.

    Raises:
        DataError: it is missing or damaged.
    """
    require_file(path, "the manifest", error=DataError, hint=_again(path))
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"the manifest {path} is damaged: {error}", _again(path))


def _again(path: Path) -> str:
    return f"remove {path} and prepare it again"


def portable_path(path: Path, folder: Path) -> str:
    """How a manifest in `folder` names a file: absolute as it was given, else from the folder on.

    So data and downloads that lie beside one another can be moved together.
    """
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)
