"""A corpus folder is whole or absent; archives that cannot be used are refused in one line."""

import errno
import gzip
import os
import time
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError, UserError
from snowmelt.data.corpora.folder import Archive, fill_folder, load_cuts
from tests.data.corpora.archives import wav_bytes, write_tar


@pytest.fixture
def archive_path(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "toy.tar", {"toy/a.txt": b"one"})


def _copy(archive: Archive, folder: Path) -> None:
    (folder / "a.txt").write_bytes(archive.read("a.txt"))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_prepares_once_and_again_only_for_another_archive(
    tmp_path: Path, archive_path: Path
) -> None:
    folder = tmp_path / "toy"
    built = []

    def build(archive: Archive, partial: Path) -> None:
        built.append(1)
        _copy(archive, partial)

    fill_folder(folder, "toy", None, 1, build)  # finds toy.tar beside the folder
    fill_folder(folder, "toy", archive_path, 1, build)
    assert len(built) == 1
    write_tar(archive_path, {"toy/a.txt": b"two"})
    fill_folder(folder, "toy", None, 1, build)  # what is there is good enough
    assert len(built) == 1
    fill_folder(folder, "toy", archive_path, 1, build)
    assert len(built) == 2
    assert (folder / "a.txt").read_bytes() == b"two"
    fill_folder(folder, "toy", None, 2, build)  # made by an older version
    assert len(built) == 3
    assert _names(tmp_path) == ["toy", "toy.tar"]


def test_nothing_remains_of_a_preparation_that_fails(tmp_path: Path, archive_path: Path) -> None:
    def build(archive: Archive, partial: Path) -> None:
        _copy(archive, partial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_folder(tmp_path / "toy", "toy", archive_path, 1, build)
    assert _names(tmp_path) == ["toy.tar"]


def test_what_a_killed_preparation_left_is_removed(tmp_path: Path, archive_path: Path) -> None:
    old, recent = tmp_path / ".toy.partial-old", tmp_path / ".toy.partial-new"
    old.mkdir()
    recent.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    fill_folder(tmp_path / "toy", "toy", archive_path, 1, _copy)
    assert _names(tmp_path) == [".toy.partial-new", "toy", "toy.tar"]


def test_a_folder_of_someone_else_is_not_touched(tmp_path: Path, archive_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"not made by snowmelt prepare \(hint: name a new folder"):
        fill_folder(folder, "toy", archive_path, 1, _copy)
    assert _names(folder) == ["thesis.tex"]


def test_an_empty_folder_is_used(tmp_path: Path, archive_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    fill_folder(tmp_path / "toy", "toy", archive_path, 1, _copy)
    assert "a.txt" in _names(tmp_path / "toy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"toy\.tar does not exist"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"no tar archive", "no complete tar archive"),
    ],
)
def test_unusable_archives(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "toy.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        fill_folder(tmp_path / "toy", "toy", path, 1, _copy)
    assert not (tmp_path / "toy").exists()


def test_truncated_archive(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "toy.tar", {"toy/a.txt": b"x" * 5000})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="no complete tar archive"):
        Archive(path, "toy")


def test_archive_of_another_corpus(archive_path: Path) -> None:
    archive = Archive(archive_path, "other")
    with pytest.raises(DataError, match=r"holds no other/a.txt \(hint: is it the right archive"):
        archive.read("a.txt")
    archive.close()


def test_table_without_the_columns_needed(tmp_path: Path) -> None:
    archive = Archive(
        write_tar(tmp_path / "toy.tar", {"toy/t.tsv": b"file\ttext\na\tB C\n"}), "toy"
    )
    assert archive.table("t.tsv", ("file",)) == [{"file": "a", "text": "B C"}]
    with pytest.raises(DataError, match="t.tsv in .* has no column speaker"):
        archive.table("t.tsv", ("file", "speaker"))
    archive.close()


def test_cuts_of_a_folder_that_is_not_prepared(tmp_path: Path) -> None:
    hint = f"run snowmelt prepare {tmp_path.name} --data-dir {tmp_path.parent}"
    with pytest.raises(DataError, match=rf"no prepared corpus \(hint: {hint}\)"):
        load_cuts(tmp_path, "cuts.jsonl.gz")


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"no json"), None])
def test_damaged_manifests(tmp_path: Path, archive_path: Path, content: bytes | None) -> None:
    folder = tmp_path / "toy"
    fill_folder(folder, "toy", archive_path, 1, _copy)
    if content is not None:
        (folder / "cuts.jsonl.gz").write_bytes(content)
    # Preparing alone would find the stamp and do nothing.
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz .*remove .*toy and run snowmelt prepare"):
        load_cuts(folder, "cuts.jsonl.gz")


def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path: Path, archive_path: Path) -> None:
    def build(archive: Archive, partial: Path) -> None:
        _copy(archive, partial)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"cannot write .*toy: No space left on device"):
        fill_folder(tmp_path / "toy", "toy", archive_path, 1, build)
    assert _names(tmp_path) == ["toy.tar"]


def test_a_file_where_the_data_folder_should_be(tmp_path: Path, archive_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match="cannot make the folder .*data: File exists"):
        fill_folder(tmp_path / "data" / "toy", "toy", archive_path, 1, _copy)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"\xff\xfe", r"t\.tsv in .*toy\.tar is not UTF-8 text"),
        (b"file\ttext\na\tB\nb\n", "lacks a value in line 3"),
    ],
)
def test_damaged_tables(tmp_path: Path, table: bytes, message: str) -> None:
    archive = Archive(write_tar(tmp_path / "toy.tar", {"toy/t.tsv": table}), "toy")
    with pytest.raises(DataError, match=message):
        archive.table("t.tsv", ("file", "text"))
    archive.close()


def test_sound_that_is_none_is_named(tmp_path: Path) -> None:
    members = {"toy/a.wav": wav_bytes(100, 8000, 1), "toy/b.wav": b"no sound"}
    archive = Archive(write_tar(tmp_path / "toy.tar", members), "toy")
    samples, rate = archive.audio("a.wav")
    assert (len(samples), rate) == (100, 8000)
    with pytest.raises(
        DataError, match=r"toy/b\.wav in .*toy\.tar cannot be used: .*no sound file"
    ):
        archive.audio("b.wav")
    archive.close()
