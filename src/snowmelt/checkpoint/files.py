"""How is a checkpoint written whole, and read without trusting it?

Invariant: what is written holds plain types and tensors only; reading never runs code that a file
brings along, whoever wrote it.
"""

import argparse
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import atomic_path, require_file

__all__ = [
    "is_torchscript",
    "load_checkpoint",
    "peek_checkpoint",
    "require_intact",
    "save_checkpoint",
]

# What a pickled NumPy number calls, under a name that does not change with NumPy's versions.
_numpy_scalar: Final[Any] = np.float64(0).__reduce__()[0]

# icefall saves its options, some of which are paths or numbers of NumPy. Building them runs no
# foreign code; names on the right are what other versions and systems write. All else is refused.
_HARMLESS: Final[list[Any]] = [
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    (pathlib.PosixPath, "pathlib._local.PosixPath"),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (pathlib.PureWindowsPath, "pathlib._local.WindowsPath"),
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]

_ARCHIVE_HEAD: Final = b"PK\x03\x04"

_DAMAGED_HINT: Final = (
    "copy or download it again, or remove it: --resume auto goes on from the one before"
)
_NO_CHECKPOINT_HINT: Final = "pass an epoch-N.pt, or another file that torch.save has written"


def save_checkpoint(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint; under its final name it is complete or absent.

    Args:
        path: the file, replaced if it exists.
        checkpoint: nested dict, list and tuple of None, bool, int, float, str and tensors.

    Raises:
        TypeError: another type in it (a mistake in the calling code).
        UserError: the file cannot be written.
    """
    _require_plain(checkpoint, "checkpoint")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(dict(checkpoint), stream)
        except RuntimeError as error:
            # torch hides the reason (disk full) behind "unexpected pos".
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory: plain types and tensors (paths in icefall's files).

    Raises:
        CheckpointError: missing, truncated or damaged file, a git-lfs pointer, a TorchScript
            program, something that is no checkpoint, or objects that are not plain.
    """
    path = require_file(path, "checkpoint", error=CheckpointError)
    _require_checkpoint(path)
    return _load(path, mmap=False)


def peek_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint for the numbers in it: tensors stay on disk, so it takes no time.

    Tensors are mapped, not checked for damage; use `load_checkpoint` where they are needed.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    path = require_file(path, "checkpoint", error=CheckpointError)
    return _load(path, mmap=_is_archive(path))  # of torch's old format nothing can be mapped


def is_torchscript(path: str | Path) -> bool:
    """True if a file is a TorchScript program; whatever else it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # damaged tables fail in zipfile in many ways
        return False


def _load(path: Path, *, mmap: bool) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            # Remarks on odd files; what is wrong with them is said below.
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise _refused(path) from error
    except Exception as error:
        # Bytes from anywhere can fail in the parser in any way, and no reason it gives is of use.
        _require_checkpoint(path)
        raise CheckpointError(f"{path} is no checkpoint", _NO_CHECKPOINT_HINT) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, where)
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif value is not None and not (
        isinstance(value, Tensor) or type(value) in (bool, int, float, str)
    ):
        raise TypeError(f"{where} is a {type(value).__name__}, checkpoints hold plain types only")


def require_intact(path: Path, what: str = "checkpoint", hint: str = _DAMAGED_HINT) -> None:
    """Check the sums of an archive: torch finds a missing end, but not a changed byte.

    Args:
        path: a file that exists.
        what: what it is for, as a message should begin.
        hint: next step if it is damaged.

    Raises:
        CheckpointError: the file is empty, truncated or damaged.
    """
    if path.stat().st_size == 0:
        raise CheckpointError(f"{what} {path} is empty", hint)
    if not _is_archive(path):
        return  # torch's old format has no sums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise CheckpointError(f"{what} {path} is truncated or damaged", hint) from error
    if damaged is not None:
        raise CheckpointError(f"{what} {path} is damaged in {damaged}", hint)


def _is_archive(path: Path) -> bool:
    """Whether a file begins as torch's present format does."""
    with path.open("rb") as stream:
        return stream.read(len(_ARCHIVE_HEAD)) == _ARCHIVE_HEAD


def _require_checkpoint(path: Path) -> None:
    require_intact(path)
    if is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript program, not a checkpoint",
            "pass the epoch-N.pt or pretrained.pt it was exported from",
        )


def _refused(path: Path) -> CheckpointError:
    """Name the objects torch would not build."""
    found = torch.serialization.get_unsafe_globals_in_checkpoint
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            names = ", ".join(found(str(path)))
    except Exception:  # a file too odd to be listed
        names = ""
    if not names:
        return CheckpointError(f"{path} is no checkpoint", _NO_CHECKPOINT_HINT)
    return CheckpointError(
        f"{path} is refused: reading it would run code ({names})",
        "save it again with tensors and plain values only, on a machine you trust it with",
    )
