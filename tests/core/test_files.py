"""Does a file appear whole or not at all, whatever goes wrong while it is written?"""

import errno
import os
import resource
import signal
import subprocess
import sys
from threading import Timer

import pytest

from snowmelt.core.errors import CheckpointError, UserError
from snowmelt.core.files import (
    atomic_path,
    held_folder,
    make_folder,
    refusal,
    remove_leftovers,
    require_file,
    write_bytes,
    write_text,
)


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


def test_what_a_killed_process_left_is_removed(tmp_path):
    with atomic_path(tmp_path / "epoch-1.pt") as temporary:
        temporary.write_text("half")
        left = temporary.with_name(temporary.name.replace("epoch-1", "epoch-2"))
        left.write_text("half")
    others = [tmp_path / name for name in (".tmp-notes-a.pt", "epoch-3.pt", ".tmp-0123abcd-a.txt")]
    for path in others:
        path.write_text("keep")
    remove_leftovers(tmp_path, "*.pt")
    assert {*tmp_path.iterdir()} == {tmp_path / "epoch-1.pt", *others}


def test_a_copy_that_fails_is_an_error_of_its_target(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    full = pytest.raises(UserError, match=r"cannot write .*b: No space left")
    with full, atomic_path(tmp_path / "b") as temporary:
        # As shutil.copyfile says it: the source first.
        reason = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, reason, str(tmp_path / "a"), None, str(temporary))


def test_folders(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for name in ("file", "file/b"):
        with pytest.raises(UserError, match=f"cannot make the folder .*{name}: "):
            make_folder(tmp_path / name)


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with (
        held_folder(tmp_path),
        pytest.raises(UserError, match="another process is writing in .*another folder"),
        held_folder(tmp_path),
    ):
        pass
    with held_folder(tmp_path):
        assert names(tmp_path) == []


def test_a_killed_process_lets_go_of_its_folder(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from snowmelt.core.files import held_folder\n"
        "with held_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process"), held_folder(tmp_path):
        pass
    # Whoever is patient gets it as soon as the other has gone.
    Timer(0.3, holder.kill).start()
    with held_folder(tmp_path, patience_s=60.0):
        assert holder.wait() == -signal.SIGKILL
    holder.stdout.close()


def test_what_the_system_refuses_is_no_bug():
    full = OSError(errno.ENOSPC, "No space left on device", "a.pt")
    assert str(refusal(full)) == "a.pt: No space left on device"
    assert str(refusal(OSError(errno.EROFS, "Read-only file system"))) == "Read-only file system"
    assert refusal(OSError(errno.EBADF, "Bad file descriptor")) is None


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
