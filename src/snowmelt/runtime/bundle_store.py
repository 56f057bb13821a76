"""How are the files of a bundle read, from a folder or from an archive?

Invariant: a content is handed out only if its SHA-256 sum is the one in SHA256SUMS.
"""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import LFS_POINTER, is_lfs_pointer

__all__ = ["FACTS_FILE", "SUFFIX", "SUMS_FILE", "BundleStore", "is_bundle", "sums_text"]

FACTS_FILE: Final = "bundle.json"
SUMS_FILE: Final = "SHA256SUMS"
SUFFIX: Final = ".snowmelt"

_COPY_AGAIN: Final = "copy or download the bundle again"

# No folders: an archive cannot name a file outside of itself.
_SUM_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]*)")


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle, perhaps a damaged one: its content is not looked at."""
    if path.is_dir():
        if (path / FACTS_FILE).exists():
            return True
        try:  # one that has lost its description
            return FACTS_FILE in (path / SUMS_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
    return path.is_file() and (path.suffix == SUFFIX or _is_renamed(path))


def _is_renamed(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return FACTS_FILE in archive.namelist()
    except Exception:  # any other file, damaged in any way
        return False


def sums_text(contents: Mapping[str, bytes]) -> str:
    """The content of SHA256SUMS for files of these names, as `sha256sum --check` reads it."""
    return "".join(f"{_sum(content)}  {name}\n" for name, content in sorted(contents.items()))


class BundleStore:
    """The files of a bundle by name.

    Args:
        path: its folder, or its archive.

    Raises:
        CheckpointError: it is no bundle, or its list of sums is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums = self._read_sums()

    def __contains__(self, name: str) -> bool:
        """Whether a file is listed, be it there or not."""
        return name in self._sums

    def names(self) -> list[str]:
        """The files that are listed, sorted."""
        return sorted(self._sums)

    def read(self, name: str) -> bytes:
        """The content of a file, its sum checked.

        Raises:
            CheckpointError: it is not listed, missing, a git-lfs pointer, or damaged.
        """
        if name not in self._sums:
            raise CheckpointError(f"{self.path}: {SUMS_FILE} does not list {name}", _COPY_AGAIN)
        content = self._content(name)
        if content is None:
            raise CheckpointError(f"{self.path} has no {name}", _COPY_AGAIN)
        if _sum(content) != self._sums[name]:
            raise CheckpointError(
                f"{self.path}: {name} is damaged or was changed: its sum is not the one in "
                f"{SUMS_FILE}",
                _COPY_AGAIN,
            )
        return content

    def _read_sums(self) -> dict[str, str]:
        content = self._content(SUMS_FILE)
        if content is None:
            raise CheckpointError(f"{self.path} has no {SUMS_FILE}", _COPY_AGAIN)
        sums: dict[str, str] = {}
        for line in content.decode("utf-8", errors="replace").splitlines():
            match = _SUM_LINE.fullmatch(line)
            if match is None or match[2] in sums:
                raise CheckpointError(
                    f"{self.path}: {SUMS_FILE} has a line {line[:40]!r}",
                    "every line must be a SHA-256 sum, two blanks and the name of a file",
                )
            sums[match[2]] = match[1]
        if FACTS_FILE not in sums:
            raise CheckpointError(f"{self.path}: {SUMS_FILE} does not list {FACTS_FILE}")
        return sums

    def _content(self, name: str) -> bytes | None:
        """The bytes of a file as they are; None if it is missing."""
        try:
            is_folder = self.path.is_dir()
            content = (self.path / name).read_bytes() if is_folder else self._member(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: {name} cannot be read: {error.strerror or error}"
            ) from None
        if content is not None and content.startswith(LFS_POINTER):
            raise CheckpointError(
                f"{self.path}: {name} is a git-lfs pointer, not the file itself",
                "fetch the content with: git lfs pull",
            )
        return content

    def _member(self, name: str) -> bytes | None:
        if is_lfs_pointer(self.path):
            raise CheckpointError(
                f"{self.path} is a git-lfs pointer, not the file itself",
                "fetch the content with: git lfs pull",
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                if name not in archive.namelist():
                    return None
                # What is not compressed cannot be larger than the archive.
                if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(
                        f"{self.path}: {name} is compressed", "store the files as they are"
                    )
                return archive.read(name)
        except CheckpointError:
            raise
        except Exception as error:  # damaged bytes can fail in the parser in any way
            raise CheckpointError(
                f"{self.path} is truncated, damaged or no bundle at all", _COPY_AGAIN
            ) from error


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
