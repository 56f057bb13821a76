"""Archives from a server that breaks off, sends damaged ones, or lacks them."""

import hashlib
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError, UserError
from snowmelt.prepare.download import (
    Archive,
    bring_folder,
    check_room,
    fetch,
    published_md5,
    remote_size,
)
from tests.prepare import corpora


class Server:
    """Serves bytes; `on_get` may change what a request gets."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        # Number of bytes after which the connection breaks, for each of the next requests.
        self.breaks: list[int] = []
        self.knows_ranges = True
        self.has_lengths = True
        self.status = 200
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(has_body=False)

            def do_GET(self) -> None:
                self._answer(has_body=True)

            def _answer(self, *, has_body: bool) -> None:
                asked = self.headers.get("Range")
                server.requests.append((self.command, self.path, asked))
                content = server.files.get(self.path)
                if content is None or server.status != 200:
                    self.send_error(404 if content is None else server.status)
                    return
                start = 0
                if asked and server.knows_ranges:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                else:
                    self.send_response(200)
                if server.has_lengths:
                    self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                if has_body:
                    stop = start + server.breaks.pop(0) if server.breaks else None
                    self.wfile.write(content[start:stop])

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve_part(self, folder: Path, part: str, resource: int = 31) -> bytes:
        """Offer a part of LibriSpeech as OpenSLR does; returns its archive."""
        corpora.librispeech(folder, [part])
        archive = corpora.tar_of(folder, f"LibriSpeech/{part}")
        self.files[f"/{resource}/{part}.tar.gz"] = archive
        listed = self.files.get(f"/{resource}/md5sum.txt", b"")
        line = f"{hashlib.md5(archive).hexdigest()}  {part}.tar.gz\n".encode()
        self.files[f"/{resource}/md5sum.txt"] = listed + line
        return archive


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def archive(server: Server, tmp_path: Path) -> Archive:
    server.serve_part(tmp_path / "published", "dev-clean-2")
    return Archive(
        url=f"{server.url}/31/dev-clean-2.tar.gz",
        path=tmp_path / "download/dev-clean-2.tar.gz",
        member="LibriSpeech/dev-clean-2",
        checksums_url=f"{server.url}/31/md5sum.txt",
    )


def _bring(archive: Archive) -> None:
    bring_folder(archive, archive.path.parent, pause_s=0.0)


def _is_whole(archive: Archive, published: Path) -> bool:
    folder = archive.path.parent / "LibriSpeech"
    return corpora.content(folder) == corpora.content(published / "LibriSpeech")


def test_a_folder_is_brought(archive: Archive, tmp_path: Path) -> None:
    _bring(archive)
    assert _is_whole(archive, tmp_path / "published")
    names = {path.name for path in archive.path.parent.iterdir()}
    assert names == {"LibriSpeech", "dev-clean-2.tar.gz"}


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_is_gone_on_with(
    server: Server, archive: Archive, tmp_path: Path, knows_ranges: bool
) -> None:
    server.breaks = [5, 100, 1000, 0, 3000]
    server.knows_ranges = knows_ranges
    # The list of checksums comes first, whole.
    server.breaks.insert(0, 10**9)
    _bring(archive)
    assert _is_whole(archive, tmp_path / "published")
    ranges = [asked for _, path, asked in server.requests if path.endswith(".gz")]
    starts = [0, 5, 105, 1105, 1105, 4105] if knows_ranges else [0, 5, 100, 1000, 0, 3000]
    assert ranges == [f"bytes={start}-" if start else None for start in starts]


def test_an_earlier_run_is_gone_on_with(server: Server, archive: Archive) -> None:
    content = server.files["/31/dev-clean-2.tar.gz"]
    part = archive.path.with_name("dev-clean-2.tar.gz.part")
    part.parent.mkdir()
    for length in (777, len(content)):
        part.write_bytes(content[:length])
        fetch(archive.url, archive.path, pause_s=0.0)
        assert archive.path.read_bytes() == content
        assert server.requests[-1] == ("GET", "/31/dev-clean-2.tar.gz", f"bytes={length}-")
        assert not part.exists()


def test_a_damaged_archive_is_fetched_once_more(
    server: Server, archive: Archive, tmp_path: Path
) -> None:
    content = server.files["/31/dev-clean-2.tar.gz"]
    part = archive.path.with_name("dev-clean-2.tar.gz.part")
    part.parent.mkdir()
    part.write_bytes(b"x" * 100)
    _bring(archive)
    assert archive.path.read_bytes() == content and _is_whole(archive, tmp_path / "published")
    archive.path.unlink()
    server.files["/31/dev-clean-2.tar.gz"] = content[:-9] + b"?" + content[-8:]
    with pytest.raises(DataError, match="came twice with another checksum than is published"):
        _bring(archive)
    assert not archive.path.exists() and not part.exists()


def test_damage_without_a_checksum_is_found_by_unpacking(
    server: Server, archive: Archive, tmp_path: Path
) -> None:
    archive = archive._replace(checksums_url="")
    content = server.files["/31/dev-clean-2.tar.gz"]
    for damaged in (
        content[: len(content) // 2],
        content[:-2],
        content[:-8] + b"0000" + content[-4:],
        content[:999] + b"???" + content[1002:],
        b"no archive",
    ):
        server.files["/31/dev-clean-2.tar.gz"] = damaged
        server.requests.clear()
        with pytest.raises(DataError, match="dev-clean-2.tar.gz is damaged: .*remove"):
            _bring(archive)
        assert len(server.requests) == 2
        assert not (archive.path.parent / archive.member).exists()
        archive.path.unlink()
    server.files["/31/dev-clean-2.tar.gz"] = content
    _bring(archive)
    assert _is_whole(archive, tmp_path / "published")


def test_another_archive_is_named(server: Server, archive: Archive) -> None:
    with pytest.raises(DataError, match=r"dev-clean-2\.tar\.gz holds no LibriSpeech/train"):
        _bring(archive._replace(member="LibriSpeech/train"))


def test_what_is_here_is_not_fetched(server: Server, archive: Archive, tmp_path: Path) -> None:
    archive.path.parent.mkdir()
    archive.path.write_bytes(server.files["/31/dev-clean-2.tar.gz"])
    _bring(archive)
    assert server.requests == [] and _is_whole(archive, tmp_path / "published")
    # With a list of checksums beside it.
    shutil.rmtree(archive.path.parent / "LibriSpeech")
    (archive.path.parent / "md5sum.txt").write_bytes(server.files["/31/md5sum.txt"])
    _bring(archive)
    archive.path.write_bytes(server.files["/31/dev-clean-2.tar.gz"] + b"\0")
    with pytest.raises(DataError, match=r"another checksum than .*md5sum.txt says .*remove"):
        _bring(archive)
    assert server.requests == []


def test_archives_cannot_write_elsewhere(server: Server, archive: Archive, tmp_path: Path) -> None:
    import io
    import tarfile

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../evil.txt"), io.BytesIO(b""))
    server.files["/31/dev-clean-2.tar.gz"] = content.getvalue()
    with pytest.raises(DataError, match="is damaged: .*outside the destination"):
        _bring(archive._replace(checksums_url=""))
    assert not list(tmp_path.rglob("evil.txt"))


def test_servers_that_do_not_answer(server: Server, archive: Archive) -> None:
    with pytest.raises(DataError, match=r"/31/x.gz cannot be fetched: .* 404 .*--base-url"):
        fetch(f"{server.url}/31/x.gz", archive.path, pause_s=0.0)
    server.status = 503
    with pytest.raises(DataError, match=r"cannot be fetched: the server answers 503 .*run the"):
        fetch(archive.url, archive.path, pause_s=0.0)
    server.status = 200
    server.breaks = [0] * 5
    with pytest.raises(DataError, match="cannot be fetched: .*it goes on where it stopped"):
        fetch(archive.url, archive.path, pause_s=0.0)
    assert remote_size(f"{server.url}/31/x.gz") is None
    assert published_md5(f"{server.url}/x") == {}
    url = server.url
    server.close()
    try:
        with pytest.raises(DataError, match="cannot be fetched: .*Connection refused"):
            fetch(f"{url}/31/dev-clean-2.tar.gz", archive.path, pause_s=0.0)
    finally:
        server.__init__()  # type: ignore[misc]  # for the fixture to close


def test_lists_of_checksums(server: Server) -> None:
    server.files["/md5sum.txt"] = b"ABC  a.tar.gz\nbcd *b.tar.gz\n\n# what else\n"
    assert published_md5(f"{server.url}/md5sum.txt") == {"a.tar.gz": "abc", "b.tar.gz": "bcd"}


def test_the_disk_is_looked_at_first(
    server: Server, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = remote_size(archive.url)
    assert size == len(server.files["/31/dev-clean-2.tar.gz"])
    free: Callable[[object], object] = lambda path: shutil._ntuple_diskusage(0, 0, 20 * 10**9)  # type: ignore[attr-defined]  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    text = check_room(tmp_path / "not/there", {"a": 6 * 10**9, "b": None})
    assert "2 files, 6.00 GB, about 10 min at 10 MB/s, 12.00 GB on the disk once unpacked" in text
    assert "20.0 GB are free; not known: b" in text
    with pytest.raises(UserError, match=r"the disk is too small: .*22\.40 GB .*--dl-dir"):
        check_room(tmp_path, {"a": 11_200_000_000})
