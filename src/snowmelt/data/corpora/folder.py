"""How does a published archive become a corpus folder that is whole or not there at all?

Members are read from the tar file into memory and written under names of our own choosing, so an
archive cannot place a file anywhere; the finished folder takes its name in one rename.

Invariant: a folder with a stamp is complete. A folder without one is never touched.
"""

import csv
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from lhotse import CutSet

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file

__all__ = [
    "Archive",
    "fill_folder",
    "load_cuts",
]

_STAMP: Final = "prepared.json"
# A preparation takes seconds: what is older than this was left by one that was killed.
_LEFTOVER_S: Final = 3600.0


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
            raise DataError(
                f"{path} is no complete tar archive: {error}", "copy or download it again"
            ) from error

    def close(self) -> None:
        """Release the file."""
        self._tar.close()

    def read(self, name: str) -> bytes:
        """Content of the member `name`, given below the archive's top folder."""
        member = self._members.get(self._prefix + name)
        stream = None if member is None else self._tar.extractfile(member)
        if stream is None:
            raise DataError(
                f"{self.path} holds no {self._prefix}{name}", "is it the right archive?"
            )
        with stream:
            return stream.read()

    def table(self, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
        """Rows of the tab-separated member `name`, keyed by its header line."""
        lines = self.read(name).decode("utf-8").splitlines()
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{self._prefix}{name} in {self.path} has no column {' and '.join(sorted(missing))}"
            )
        return list(reader)


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
    """
    stamp = _read_stamp(folder)
    if stamp is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and was not made by snowmelt prepare", "name a new folder"
        )
    wanted = {"corpus": corpus, "layout": layout}
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
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        partial = Path(tempfile.mkdtemp(prefix=_partial_prefix(folder), dir=folder.parent))
        try:
            partial.chmod(0o755)
            build(archive, partial)
            (partial / _STAMP).write_text(json.dumps(wanted) + "\n", encoding="utf-8")
            _swap(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        archive.close()


def load_cuts(folder: Path, manifest: str) -> CutSet:
    """Cuts of a prepared folder, in memory, their sound files found from anywhere.

    Raises:
        DataError: the folder is not prepared.
    """
    if _read_stamp(folder) is None:
        raise DataError(f"{folder} holds no prepared corpus", "run snowmelt prepare first")
    path = require_file(folder / manifest, "the manifest", error=DataError)
    # Manifests name files relative to the folder, so that it can be moved.
    return CutSet.from_jsonl(path).with_recording_path_prefix(folder.absolute()).to_eager()


def _read_stamp(folder: Path) -> dict[str, object] | None:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


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
