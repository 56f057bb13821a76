"""Does a file appear whole or not at all, whatever goes wrong while it is written?"""

import resource
import signal

import pytest

from snowmelt.core.errors import CheckpointError, UserError
from snowmelt.core.files import atomic_path, require_file, write_bytes, write_text


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "ä\n")
    write_text(path, "b")
    assert path.read_text(encoding="utf-8") == "b"
    assert names(path.parent) == ["a.txt"]


def test_temporary_name_keeps_directory_and_suffix(tmp_path):
    with atomic_path(tmp_path / "cuts.jsonl.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("cuts.jsonl.gz")
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"x")


def test_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("half-way")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_full_disk_is_a_user_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    # A limit on file sizes stands in for a full disk: write() fails in the middle.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*a\.bin: File too large"):
            write_bytes(path, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_file_in_place_of_the_directory(tmp_path):
    write_text(tmp_path / "plain", "")
    with pytest.raises(UserError, match=r"cannot make .*plain"):
        write_text(tmp_path / "plain" / "a.txt", "")


def test_refuses_to_replace_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="not a regular file"):
        write_text(tmp_path, "")
    with pytest.raises(UserError, match="not a regular file"):
        write_text("/dev/null", "")


def test_an_error_of_another_file_is_passed_on(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(missing.read_bytes())


def test_require_file(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match=r"checkpoint .*a\.pt does not exist \(hint: train\)"):
        require_file(path, "checkpoint", hint="train")
    with pytest.raises(CheckpointError, match="is a directory"):
        require_file(tmp_path, "checkpoint", error=CheckpointError)
    path.write_bytes(b"")
    assert require_file(str(path), "checkpoint") == path


def test_require_file_recognises_a_git_lfs_pointer(tmp_path):
    path = tmp_path / "pretrained.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(UserError, match=r"git-lfs pointer.*git lfs pull"):
        require_file(path, "checkpoint")


def test_require_file_unreadable(tmp_path):
    path = tmp_path / "loop"
    path.symlink_to(path)
    with pytest.raises(UserError, match="cannot be read: Too many levels"):
        require_file(path, "checkpoint")
