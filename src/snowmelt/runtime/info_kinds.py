"""What is at a path: an experiment, a checkpoint, ONNX files, a TorchScript program, a vocabulary?

Invariant: looks at names and first bytes only; nothing is loaded, so nothing can fail half-way.
"""

from pathlib import Path
from typing import Literal

from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import require_file
from snowmelt.runtime.bundle_store import is_bundle

__all__ = ["Kind", "kind_of"]

Kind = Literal[
    "bundle",
    "experiment",
    "checkpoint",
    "onnx folder",
    "onnx file",
    "torchscript folder",
    "torchscript file",
    "tokens",
    "bpe model",
    "vocabulary folder",
]

# How torch's files begin: an archive, or the old format's pickle.
_ARCHIVE = b"PK\x03\x04"
_PICKLE = b"\x80\x02"


def kind_of(path: Path) -> Kind:
    """The kind of a file or folder.

    Raises:
        CheckpointError: it does not exist, cannot be read, or is none of them.
    """
    if is_bundle(path):
        return "bundle"
    if path.is_dir():
        return _folder(path)
    require_file(path, "the file", error=CheckpointError)
    if path.suffix == ".onnx":
        return "onnx file"
    if path.suffix == ".model":
        return "bpe model"
    with path.open("rb") as stream:
        head = stream.read(len(_ARCHIVE))
    if not head:
        raise CheckpointError(f"{path} is empty", "copy or download it again")
    if head == _ARCHIVE or head.startswith(_PICKLE) or path.suffix in (".pt", ".pth"):
        from snowmelt.checkpoint.files import is_torchscript

        return "torchscript file" if is_torchscript(path) else "checkpoint"
    if path.suffix == ".txt":
        return "tokens"
    raise CheckpointError(
        f"{path} is no file of a model",
        "known are bundles, checkpoints (.pt), .onnx, TorchScript (.pt), tokens.txt and bpe.model",
    )


def _folder(path: Path) -> Kind:
    has: list[tuple[str, Kind]] = [
        ("config.yaml", "experiment"),
        ("*.onnx", "onnx folder"),
        ("*_jit_trace.pt", "torchscript folder"),
        ("cpu_jit.pt", "torchscript folder"),
        ("epoch-*.pt", "experiment"),
        ("tokens.txt", "vocabulary folder"),
        ("bpe.model", "vocabulary folder"),
    ]
    for pattern, kind in has:
        if any(path.glob(pattern)):
            return kind
    raise CheckpointError(
        f"the folder {path} holds no model",
        "give an experiment's folder, a folder of exported files, or a file",
    )
