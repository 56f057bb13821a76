"""How does a published archive come to this disk, and out of it the folder that is wanted?

Invariant: what has its final name is whole: an archive has the published length and checksum, a
folder was unpacked to its end. A broken download is gone on with from its last byte.
"""

import hashlib
import http.client
import logging
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from snowmelt.core.errors import DataError, UserError
from snowmelt.core.files import make_folder
from snowmelt.core.progress import progress_bar

__all__ = ["Archive", "bring_folder", "check_room", "fetch", "published_md5", "remote_size"]

_logger = logging.getLogger(__name__)

_BLOCK: Final = 1 << 20
_TIMEOUT_S: Final = 60.0
# For what is good to know, but not needed.
_QUICK_TIMEOUT_S: Final = 10.0
# So many times in a row the server may give nothing at all.
_MAX_FAILURES: Final = 5
_PAUSE_S: Final = 2.0
_GIGA: Final = 1e9
# To say how long a download will take before it has begun.
_ASSUMED_BYTES_PER_S: Final = 10e6

_MIRROR_HINT: Final = "put the archive there by hand, or take a mirror: --base-url"

_BROKEN: Final = (
    ConnectionError,
    TimeoutError,
    http.client.HTTPException,
    urllib.error.URLError,
)


class Archive(NamedTuple):
    """A published archive and the folder in it.

    Attributes:
        url: where it is published.
        path: where it is, or will be, on this disk.
        member: the wanted folder inside, for example LibriSpeech/dev-clean.
        checksums_url: a list `<md5>  <file>`; empty where none is published.
    """

    url: str
    path: Path
    member: str
    checksums_url: str


def bring_folder(archive: Archive, root: Path, *, pause_s: float = _PAUSE_S) -> None:
    """Make `root / archive.member` from the archive, which is fetched if it is not on the disk.

    Args:
        archive: what to unpack.
        root: folder to unpack into. Text files beside the wanted folder come along.
        pause_s: seconds between two tries to reach the server.

    Raises:
        DataError: the archive is damaged, or cannot be had.
        UserError: the disk is full.
    """
    make_folder(root)
    was_here = archive.path.exists()
    if was_here:
        _logger.info("%s is here already", archive.path)
        _check_local(archive)
    else:
        _fetch_checked(archive, pause_s)
    try:
        _unpack(archive, root)
    except DataError:
        if was_here:
            raise
        # There was no checksum to find this out before.
        _logger.warning("%s came damaged, and is fetched once more", archive.path)
        archive.path.unlink()
        _fetch_checked(archive, pause_s)
        _unpack(archive, root)


def fetch(url: str, path: Path, md5: str | None = None, *, pause_s: float = _PAUSE_S) -> None:
    """Fetch a file; goes on with `<path>.part` if that is there.

    Args:
        url: where it is.
        path: the name it gets when it is whole.
        md5: its checksum, if one is published.
        pause_s: seconds between two tries to reach the server.

    Raises:
        DataError: the server has no such file, cannot be reached, or sends something else.
    """
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    for is_last in (False, True):
        _fetch_part(url, part, pause_s)
        if md5 is None or _md5(part) == md5:
            os.replace(part, path)
            return
        part.unlink()
        _logger.warning("%s has another checksum than is published", url)
        if is_last:
            break
    raise DataError(
        f"{url} came twice with another checksum than is published",
        "try again later, or take a mirror: --base-url",
    )


def remote_size(url: str) -> int | None:
    """Bytes of a file on a server; None if that cannot be found out."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_QUICK_TIMEOUT_S) as response:
            return _length(response)
    except _BROKEN:
        return None


def published_md5(url: str) -> dict[str, str]:
    """Checksums by name of file; empty if there is no such list."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return _md5_lines(response.read().decode("utf-8", errors="replace"))
    except _BROKEN:
        _logger.warning("%s cannot be had: checksums are not compared", url)
        return {}


def check_room(folder: Path, sizes: Mapping[str, int | None]) -> str:
    """Say what a download will take, and refuse it when the disk is too small.

    Args:
        folder: where it goes.
        sizes: bytes of each file that is to be fetched; None: not known.

    Raises:
        UserError: there is less room than for the archives and what comes out of them.
    """
    known = sum(size for size in sizes.values() if size is not None)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    unknown = [name for name, size in sizes.items() if size is None]
    text = (
        f"to fetch: {len(sizes)} files, {known / _GIGA:.2f} GB, about "
        f"{_duration(known / _ASSUMED_BYTES_PER_S)} at {_ASSUMED_BYTES_PER_S / 1e6:.0f} MB/s, "
        f"{2 * known / _GIGA:.2f} GB on the disk once unpacked; {free / _GIGA:.1f} GB are free"
    )
    if unknown:
        text += f"; not known: {', '.join(unknown)}"
    # Sound is packed already: what comes out is as large as the archive.
    if 2 * known > free:
        raise UserError(f"the disk is too small: {text}", "--dl-dir names another folder")
    return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _fetch_checked(archive: Archive, pause_s: float) -> None:
    checksums = published_md5(archive.checksums_url) if archive.checksums_url else {}
    fetch(archive.url, archive.path, checksums.get(archive.path.name), pause_s=pause_s)


def _check_local(archive: Archive) -> None:
    """Compare with a list of checksums that lies beside the archive, if there is one."""
    beside = archive.path.with_name("md5sum.txt")
    if not beside.is_file():
        return
    md5 = _md5_lines(beside.read_text(encoding="utf-8", errors="replace")).get(archive.path.name)
    if md5 is not None and _md5(archive.path) != md5:
        raise DataError(
            f"{archive.path} has another checksum than {beside} says",
            f"remove {archive.path}: it is then fetched again",
        )


def _fetch_part(url: str, part: Path, pause_s: float) -> None:
    """Fetch the rest of a file; returns when all of it is there."""
    failures = 0
    total: int | None = None
    with progress_bar(f"fetching {url.rpartition('/')[2]}") as progress:
        while True:
            start = part.stat().st_size if part.exists() else 0
            reason = ""
            try:
                total = _fetch_rest(url, part, start, progress.advance)
            except urllib.error.HTTPError as error:
                if error.code == 416 and start > 0:  # nothing is left to send
                    return
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500:
                    raise DataError(f"{url} cannot be fetched: {reason}", _MIRROR_HINT) from None
            except _BROKEN as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            size = part.stat().st_size if part.exists() else 0
            if not reason and (total is None or size >= total):
                return
            failures = 0 if size > start else failures + 1
            if failures == _MAX_FAILURES:
                raise DataError(
                    f"{url} cannot be fetched: {reason or 'the connection breaks'}",
                    "run the same command again, it goes on where it stopped",
                )
            _logger.info("%s broke off at %d bytes, going on", url, size)
            time.sleep(pause_s)


def _fetch_rest(
    url: str, part: Path, start: int, advance: Callable[[float, str], None]
) -> int | None:
    """Append to `part` what the server sends; returns the length of the whole file if it says."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        # A server that knows no ranges sends everything from the start.
        is_rest = response.status == 206
        length = _length(response)
        done = start if is_rest else 0
        total = None if length is None else done + length
        of_total = "" if total is None else f" of {total / 1e6:.1f}"
        with part.open("ab" if is_rest else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                advance(len(block), f"{done / 1e6:.1f}{of_total} MB")
    return total


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _md5_lines(text: str) -> dict[str, str]:
    fields = (line.split() for line in text.splitlines())
    return {line[1].lstrip("*"): line[0].lower() for line in fields if len(line) == 2}


def _unpack(archive: Archive, root: Path) -> None:
    target = root / archive.member
    scratch = root / f".unpacking-{archive.path.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    damaged_hint = f"remove {archive.path}: it is then fetched again"
    try:
        with (
            archive.path.open("rb") as file,
            progress_bar(f"unpacking {archive.path.name}", archive.path.stat().st_size) as progress,
            tarfile.open(fileobj=file, mode="r:*") as tar,
        ):
            done = 0
            for member in tar:
                tar.extract(member, scratch, filter="data")
                progress.advance(file.tell() - done)
                done = file.tell()
            # A gzip checksum comes last, behind what tar reads.
            while tar.fileobj is not None and tar.fileobj.read(_BLOCK):
                pass
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.path} is damaged: {error}", damaged_hint) from error
    except OSError as error:
        if error.errno is None:  # gzip's own
            raise DataError(f"{archive.path} is damaged: {error}", damaged_hint) from error
        raise
    unpacked = scratch / archive.member
    if not unpacked.is_dir():
        shutil.rmtree(scratch)
        raise DataError(f"{archive.path} holds no {archive.member}", damaged_hint)
    make_folder(target.parent)
    for path in sorted(unpacked.parent.iterdir()):
        if path.is_file() and not (target.parent / path.name).exists():
            os.replace(path, target.parent / path.name)
    # One sync for all files, before the name says that they are complete.
    os.sync()
    os.replace(unpacked, target)
    shutil.rmtree(scratch)
