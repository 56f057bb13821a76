"""How does a published archive become a corpus folder that is whole or not there at all?

Members are read from the tar file into memory and written under names of our own choosing, so an
archive cannot place a file anywhere; the finished folder takes its name in one rename.

Invariant: a folder with a stamp is complete. A folder without one is never touched.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from lhotse import CutSet

from snowmelt.audio.read import read_audio
from snowmelt.core.errors import AudioError, DataError, UserError
from snowmelt.core.files import make_folder, require_file

__all__ = [
    "Archive",
    "fill_folder",
    "load_cuts",
    "load_split",
]

_STAMP: Final = "prepared.json"
_SPLITS: Final = ("train", "dev", "test")
# A preparation takes seconds: what is older than this was left by one that was killed.
_LEFTOVER_S: Final = 3600.0

_WRONG_ARCHIVE_HINT: Final = "is it the right archive? copy or download it again"


class Archive:
    """A corpus archive (tar), read member by member without unpacking it.

    Raises:
        DataError: the file is missing, a git-lfs pointer, or no complete tar archive.
    """

    def __init__(self, path: Path, corpus: str) -> None:
        self.path = require_file(
            path,
            f"the {corpus} archive",
            error=DataError,
            hint=f"name it with --archive, or put it there as {corpus}.tar",
        )
        self._prefix = f"{corpus}/"
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115  (closed by `close`)
            try:
                self._members = {m.name: m for m in self._tar.getmembers() if m.isfile()}
            except BaseException:
                self._tar.close()
                raise
        except (tarfile.TarError, EOFError, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise DataError(
                f"{path} is no complete tar archive: {reason}", "copy or download it again"
            ) from error

    def close(self) -> None:
        """Release the file."""
        self._tar.close()

    def read(self, name: str) -> bytes:
        """Content of the member `name`, given below the archive's top folder."""
        member = self._members.get(self._prefix + name)
        stream = None if member is None else self._tar.extractfile(member)
        if stream is None:
            raise DataError(f"{self.path} holds no {self._prefix}{name}", _WRONG_ARCHIVE_HINT)
        with stream:
            return stream.read()

    def table(self, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
        """Rows of the tab-separated member `name`, keyed by its header line."""
        try:
            lines = self.read(name).decode("utf-8").splitlines()
        except UnicodeDecodeError:
            raise DataError(
                f"{self._prefix}{name} in {self.path} is not UTF-8 text", _WRONG_ARCHIVE_HINT
            ) from None
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{self._prefix}{name} in {self.path} has no column "
                f"{' and '.join(sorted(missing))}",
                _WRONG_ARCHIVE_HINT,
            )
        rows = list(reader)
        for number, row in enumerate(rows, start=2):
            if any(not row[column] for column in columns):
                raise DataError(
                    f"{self._prefix}{name} in {self.path} lacks a value in line {number}",
                    _WRONG_ARCHIVE_HINT,
                )
        return rows

    def audio(self, name: str) -> tuple[npt.NDArray[np.float32], int]:
        """Samples and sample rate of the sound file `name`, as `read_audio`."""
        try:
            return read_audio(io.BytesIO(self.read(name)))
        except AudioError as error:
            raise DataError(
                f"{self._prefix}{name} in {self.path} cannot be used: {error.message}",
                _WRONG_ARCHIVE_HINT,
            ) from None


def fill_folder(
    folder: Path,
    corpus: str,
    archive_path: Path | None,
    layout: int,
    build: Callable[[Archive, Path], None],
) -> None:
    """Prepare a corpus folder, unless it already holds this archive in this layout.

    Args:
        folder: the corpus folder; replaced as a whole when it is out of date.
        corpus: name of the corpus, and of the top folder inside the archive.
        archive_path: the tar file; None takes an up-to-date folder as it is, else `<corpus>.tar`
            beside the folder.
        layout: version of what `build` writes.
        build: writes everything into an empty folder given as its second argument.

    Raises:
        DataError: the archive cannot be used, or `folder` holds files of someone else.
        UserError: `folder` cannot be written, or the disk is full.
    """
    stamp = _read_stamp(folder)
    if stamp is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and was not made by snowmelt prepare", "name a new folder"
        )
    wanted: dict[str, object] = {"corpus": corpus, "layout": layout}
    if archive_path is None:
        if stamp is not None and wanted.items() <= stamp.items():
            return
        archive_path = folder.parent / f"{corpus}.tar"
    archive = Archive(archive_path, corpus)
    try:
        with archive.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        wanted["archive_sha256"] = digest
        if stamp == wanted:
            return
        make_folder(folder.parent)
        _remove_leftovers(folder)
        try:
            _build_and_swap(folder, wanted, lambda partial: build(archive, partial))
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        archive.close()


def load_split(folder: Path, split: str) -> CutSet:
    """Cuts of one of the splits train, dev and test of a prepared folder.

    Raises:
        DataError: as `load_cuts`, or there is no such split.
    """
    if split not in _SPLITS:
        raise DataError(f"there is no split {split!r}", f"choose {', '.join(_SPLITS)}")
    return load_cuts(folder, f"cuts_{split}.jsonl.gz")


def load_cuts(folder: Path, manifest: str) -> CutSet:
    """Cuts of a prepared folder, in memory, their sound files found from anywhere.

    Raises:
        DataError: the folder is not prepared, or what is in it is damaged.
    """
    if _read_stamp(folder) is None:
        raise DataError(
            f"{folder} holds no prepared corpus",
            f"run snowmelt prepare {folder.name} --data-dir {folder.parent}",
        )
    again = f"remove {folder} and run snowmelt prepare"
    path = require_file(folder / manifest, "the manifest", error=DataError, hint=again)
    try:
        # Manifests name files relative to the folder, so that it can be moved.
        return CutSet.from_jsonl(path).with_recording_path_prefix(folder.absolute()).to_eager()
    except Exception as error:  # bytes from anywhere fail in lhotse and below in any way
        raise DataError(f"the manifest {path} is damaged: {error}", again) from error


def _read_stamp(folder: Path) -> dict[str, object] | None:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def _build_and_swap(folder: Path, stamp: dict[str, object], build: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=_partial_prefix(folder), dir=folder.parent))
    try:
        partial.chmod(0o755)
        build(partial)
        (partial / _STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
        _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path) -> None:
    # One sync for thousands of small files, before the name says that they are complete.
    os.sync()
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=_partial_prefix(folder), dir=folder.parent))
        os.replace(folder, old)  # `old` is empty
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)


def _partial_prefix(folder: Path) -> str:
    return f".{folder.name}.partial-"


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.parent.glob(f"{_partial_prefix(folder)}*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(leftover, ignore_errors=True)
