"""How is a file written so that it appears whole or not at all, and checked before it is read?

Invariant: under its final name a file is either the old one or the complete new one, also when
the process is killed or the power fails at any moment.
"""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from snowmelt.core.errors import UserError

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LFS_POINTER",
    "atomic_path",
    "held_folder",
    "is_lfs_pointer",
    "make_folder",
    "refusal",
    "remove_leftovers",
    "require_file",
    "write_bytes",
    "write_text",
]

# How unfinished files are called: <prefix><8 hexadecimal digits>-<final name>.
_TEMPORARY: Final = ".tmp-"

# How often a process that waits for a folder looks again.
_LOCK_POLL_S: Final = 0.1

# How a git-lfs pointer begins.
LFS_POINTER: Final = b"version https://git-lfs"

_REFUSALS: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Name to write a file under; it takes its final name when the block ends without error.

    Missing parent directories are created. The yielded name lies in the same directory, keeps
    the suffix (writers look at it) and starts with a dot. On error it is removed and a file that
    had the final name stays as it was.

    Args:
        path: the final name; an existing file is replaced.

    Raises:
        UserError: the directory cannot be written, the disk is full, or `path` is a directory
            or device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file")
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    make_folder(path.parent)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        # The rename itself is only durable once the directory is on disk.
        _fsync(path.parent)
    except OSError as error:
        # An error that names other files only is the caller's own affair.
        names = {str(error.filename), str(error.filename2)}
        if error.filename is None or names & {str(temporary), str(path.parent)}:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        UserError: something else has its name, or the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {path}: {error.strerror or error}", "choose another folder"
        ) from None


@contextmanager
def held_folder(path: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Keep a folder for this process until the block ends; a kill lets go of it too.

    The lock is on the folder itself, so no file is left behind. Systems without such locks, and
    file systems that refuse them, hold nothing.

    Args:
        path: a folder; made where it is missing.
        patience_s: time that another process has to let go of it.

    Raises:
        UserError: another process holds it, or it cannot be made.
    """
    make_folder(path)
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    give_up_at = time.monotonic() + patience_s
    try:
        while not _lock(handle):
            if time.monotonic() >= give_up_at:
                raise UserError(
                    f"another process is writing in {path}",
                    "wait until it has ended, or choose another folder",
                )
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether a folder is ours now, or cannot be anybody's."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # some network file systems know no locks
    return True


def refusal(error: OSError) -> UserError | None:
    """What to tell the user of an error of the system; None if it is a mistake of the program.

    The system refuses a file or folder that the user named, or the disk is full: nothing in the
    program is wrong, and a traceback would only hide the line that helps.
    """
    if error.errno not in _REFUSALS:
        return None
    where = f"{error.filename}: " if error.filename is not None else ""
    return UserError(f"{where}{error.strerror}")


def remove_leftovers(directory: str | Path, pattern: str) -> None:
    """Remove unfinished files of processes that were killed while they wrote them.

    Args:
        directory: nobody may be writing such files there now.
        pattern: final names of the files, as for `Path.glob`.
    """
    for path in Path(directory).glob(f"{_TEMPORARY}{'[0-9a-f]' * 8}-{pattern}"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically.

    Raises:
        UserError: as `atomic_path`.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content`, atomically.

    Raises:
        UserError: as `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def require_file(
    path: str | Path, what: str, *, error: type[UserError] = UserError, hint: str = ""
) -> Path:
    """`path` as a Path, if it is a readable file with content of its own.

    Args:
        path: the file that is needed.
        what: what the file is for, as the message should begin ("checkpoint", "bpe model").
        error: class of the exception to raise.
        hint: next step when the file is missing.

    Raises:
        UserError: (or `error`) missing, a directory, unreadable, or a git-lfs pointer, that is a
            small text standing for a large file that was never downloaded.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"{what} {path} is a directory, a file is needed", hint)
    try:
        is_pointer = is_lfs_pointer(path)
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist", hint) from None
    except OSError as reason:
        raise error(f"{what} {path} cannot be read: {reason.strerror or reason}", hint) from None
    if is_pointer:
        raise error(
            f"{what} {path} is a git-lfs pointer, not the file itself",
            "fetch the content with: git lfs pull",
        )
    return path


def is_lfs_pointer(path: str | Path) -> bool:
    """Whether a file is a git-lfs pointer: a small text for a large file that was not fetched.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
