"""Checkpoints compared to the bit, and such as know nothing but their position."""

from pathlib import Path
from typing import Any

import torch

from snowmelt.checkpoint.files import save_checkpoint


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places in which two checkpoints differ by a bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) and a.dtype == b.dtype else [where]
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        return [d for k in a for d in differences(a[k], b[k], f"{where}/{k}")]
    if isinstance(a, list | tuple):
        assert len(a) == len(b), where
        return [
            d
            for n, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{where}/{n}")
        ]
    return [] if a == b else [where]


def write_position(path: Path, epoch: int, batch_idx_train: int) -> None:
    progress = {"epoch": epoch, "batch_idx_train": batch_idx_train}
    save_checkpoint(path, {"model": {}, "snowmelt": {"progress": progress}})
