"""What the log says about versions and machine."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from snowmelt import __version__
from snowmelt.train.environment import _git_state, env_info


def test_versions() -> None:
    info = env_info()
    assert info["snowmelt-version"] == __version__
    assert info["torch-version"] == torch.__version__
    assert all(isinstance(value, str) and value for value in info.values())


def test_a_folder_that_is_no_checkout_is_no_error(tmp_path: Path) -> None:
    assert _git_state(tmp_path) == "unknown"


def test_a_machine_without_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _git_state(tmp_path) == "unknown"


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_changes_are_told(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    assert _git_state(tmp_path) == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "file").write_text("two")
    assert _git_state(tmp_path).endswith("-dirty")
