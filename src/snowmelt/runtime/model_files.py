"""Which three files are a model that lies in parts, and what is in a file? Its content says it.

Invariant: looks at first bytes only; nothing of a file is executed, and torch is imported only for
files that torch has written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import require_file

__all__ = ["Form", "ModelFiles", "form_of"]

Form = Literal["checkpoint", "torchscript", "onnx"]

# How torch's files begin: an archive, or the old format's pickle.
_TORCH: Final = (b"PK\x03\x04", b"\x80\x02")

# The tag of the first field of every ONNX model, its format's version.
_ONNX: Final = b"\x08"


@dataclass(frozen=True)
class ModelFiles:
    """A model in three files, all traced by torch or all ONNX, whatever their names.

    Attributes:
        encoder, decoder, joiner: the files.
    """

    encoder: Path
    decoder: Path
    joiner: Path

    def __str__(self) -> str:
        return str(self.encoder)

    def form(self) -> Literal["torchscript", "onnx"]:
        """What the three are.

        Raises:
            CheckpointError: a file is missing, or they are not of one form.
        """
        forms = {path: form_of(path) for path in (self.encoder, self.decoder, self.joiner)}
        for path, form in forms.items():
            if form == "checkpoint":
                raise CheckpointError(
                    f"{path} is a checkpoint, not a part of an exported model",
                    "pass it alone, as --checkpoint",
                )
            if form != forms[self.encoder]:
                raise CheckpointError(
                    f"{self.encoder} is {forms[self.encoder]} and {path} is {form}",
                    "take the three files of one export",
                )
        return "onnx" if forms[self.encoder] == "onnx" else "torchscript"


def form_of(path: Path) -> Form:
    """What a model's file is by its content.

    Raises:
        CheckpointError: it is missing, empty, a git-lfs pointer, or nothing of the three.
    """
    require_file(path, "model file", error=CheckpointError)
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith(_TORCH):
        from snowmelt.checkpoint.files import is_torchscript

        return "torchscript" if is_torchscript(path) else "checkpoint"
    if head.startswith(_ONNX):
        return "onnx"
    raise CheckpointError(
        f"{path} is neither a checkpoint nor a TorchScript program nor an ONNX model",
        "copy or download it again" if head else "it is empty: copy or download it again",
    )
