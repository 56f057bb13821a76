"""Which of the things in a folder is the model? A folder may hold several forms of one.

Invariant: looks at names only. The order is that of the docstring of `model_in`.
"""

from pathlib import Path

from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.bundle_store import SUFFIX, is_bundle

__all__ = ["model_in"]


def model_in(folder: Path) -> Path:
    """The model in a folder, which is the folder itself where all of it belongs together.

    In this order: a bundle; the experiment of a training; one bundle's file; ONNX files; weights
    alone, pretrained*.pt; TorchScript programs. Weights and programs are also looked for in the
    folder exp, where the repositories of icefall's models have them.

    Args:
        folder: any folder; one with nothing of this in it is returned as it is.

    Raises:
        CheckpointError: there are several of one kind.
    """
    if is_bundle(folder) or (folder / "config.yaml").exists():
        return folder
    if file := _only(folder, f"*{SUFFIX}"):
        return file
    if any(folder.glob("encoder*.onnx")):
        return folder
    for place in (folder, folder / "exp"):
        for pattern in ("pretrained*.pt", "cpu_jit*.pt", "encoder_jit_trace*.pt"):
            if file := _only(place, pattern):
                return file
    return folder


def _only(folder: Path, pattern: str) -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(f"{folder} has several models: {names}", "name the file")
    return found[0] if found else None
