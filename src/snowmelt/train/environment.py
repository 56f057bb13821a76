"""With what is a run computed? Versions and machine, for its log.

Invariant: nothing here decides anything; it stays out of checkpoints, which are passed around.
"""

import platform
import socket
import subprocess
from pathlib import Path

import torch

from snowmelt._version import __version__

__all__ = ["env_info"]


def env_info() -> dict[str, str]:
    """Names and values, by the original's names where it has them."""
    return {
        "snowmelt-version": __version__,
        "snowmelt-git-sha1": _git_state(Path(__file__).parent),
        "torch-version": torch.__version__,
        "torch-cuda-version": torch.version.cuda or "none",
        "python-version": platform.python_version(),
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
    }


def _git_state(folder: Path) -> str:
    """The commit of a checkout, with a word on changes; "unknown" where it is none."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"
