"""How does a folder appear whole or not at all?

Invariant: under its final name a folder is complete: the old one, the new one, or, for the moment
between two renames, none.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snowmelt.core.errors import UserError
from snowmelt.core.files import make_folder

__all__ = ["atomic_folder"]


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Folder to write into; it takes its final name when the block ends without error.

    It lies beside the final one. On error it is removed, and what had the final name stays.

    Args:
        path: the final name. A folder of this name is replaced with all that is in it: whether that
            may be, is the caller's to decide.

    Raises:
        UserError: the system refuses, or `path` is a file.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"cannot write the folder {path}: it is a file", "choose another name")
    make_folder(path.parent)
    token = secrets.token_hex(4)
    new = path.with_name(f".tmp-{token}-{path.name}")
    old = path.with_name(f".tmp-{token}-old-{path.name}")
    make_folder(new)
    try:
        yield new
        _fsync(new)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        _fsync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write the folder {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
