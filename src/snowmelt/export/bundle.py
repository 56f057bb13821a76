"""How is a bundle written? One trained model with all that it needs, as a folder or as one file.

Invariant: it appears whole or not at all, and the same model gives the same bytes. Both forms of
the weights come from one state dict and were compared before they are written.

The format is described in docs/bundle.md; `runtime/bundle.py` reads it.
"""

import io
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from safetensors.torch import save
from torch import Tensor

from snowmelt._version import __version__
from snowmelt.core.errors import ConfigError
from snowmelt.core.files import write_bytes
from snowmelt.core.folders import atomic_folder
from snowmelt.export.onnx import OnnxFiles
from snowmelt.runtime.bundle import (
    BPE_FILE,
    FORMAT_VERSION,
    ONNX_FILES,
    SAFETENSORS_FILE,
    TOKENS_FILE,
    BundleFacts,
    DecodingDefaults,
    Training,
    Vocabulary,
    WeightsForm,
    facts_text,
)
from snowmelt.runtime.bundle_store import FACTS_FILE, SUFFIX, SUMS_FILE, is_bundle, sums_text
from snowmelt.runtime.load import LoadedTransducer
from snowmelt.text.normalise import LetterCase, letter_case_of
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

__all__ = ["BundleOptions", "bundle_contents", "require_free", "write_bundle"]

# The first date that a ZIP archive can hold: the same model gives the same bytes on any day.
_NO_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class BundleOptions:
    """A bundle to be written.

    Attributes:
        path: a folder, or a file whose name ends with .snowmelt.
        weights: which forms of them.
        decoding: the search where nothing else is asked for.
        licence: of the weights; None: not stated.
    """

    path: Path
    weights: Literal["both", "safetensors", "onnx"] = "both"
    decoding: DecodingDefaults = field(default_factory=DecodingDefaults)
    licence: str | None = None

    @property
    def forms(self) -> tuple[WeightsForm, ...]:
        """The forms of the weights that are written."""
        return ("safetensors", "onnx") if self.weights == "both" else (self.weights,)


def require_free(path: Path) -> None:
    """Refuse a place that holds something else than a bundle, before time goes into one.

    Raises:
        ConfigError: it does.
    """
    if path.is_dir() and path.suffix == SUFFIX:
        raise ConfigError(f"{path} is a folder, its name asks for a file", f"leave {SUFFIX} out")
    if path.is_dir() and any(path.iterdir()) and not is_bundle(path):
        raise ConfigError(
            f"the folder {path} is not empty and holds no bundle", "choose a new folder"
        )
    if path.is_file() and path.suffix != SUFFIX:
        raise ConfigError(f"{path} is a file", f"choose a folder, or a name that ends in {SUFFIX}")


def bundle_contents(
    loaded: LoadedTransducer,
    weights: Mapping[str, Tensor],
    onnx: OnnxFiles | None,
    options: BundleOptions,
    training: Training,
) -> dict[str, bytes]:
    """Name -> content of all files of a bundle.

    Args:
        loaded: the model.
        weights: its state dict, under the original's names.
        onnx: the three files of the same model; None: not among the forms.
        options: what is asked for.
        training: what is known of it.
    """
    tokenizer, config = loaded.tokenizer, loaded.config
    vocabulary = Vocabulary(tokenizer.kind, tokenizer.vocab_size, vocabulary_hash(tokenizer))
    facts = BundleFacts(
        format_version=FORMAT_VERSION,
        snowmelt=__version__,
        weights=options.forms,
        model=config.model,
        features=config.features,
        min_tail_s=config.min_tail_s,
        letter_case=_letter_case(tokenizer),
        head=loaded.head,
        vocabulary=vocabulary,
        decoding=options.decoding,
        training=training,
        licence=options.licence,
    )
    contents = {FACTS_FILE: facts_text(facts).encode(), **_vocabulary_files(tokenizer)}
    if "safetensors" in options.forms:
        # Tensors that share memory are refused by the format.
        own = {key: value.detach().clone().contiguous() for key, value in weights.items()}
        contents[SAFETENSORS_FILE] = save(own, {"vocabulary_hash": vocabulary.hash})
    if onnx is not None:
        contents |= dict(zip(ONNX_FILES, onnx, strict=True))
    contents[SUMS_FILE] = sums_text(contents).encode()
    return contents


def write_bundle(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a bundle as a file, if its name ends in .snowmelt, or as a folder.

    Args:
        path: a bundle of this name is replaced.
        contents: name -> content.

    Raises:
        UserError: it cannot be written, or something else has the name.
    """
    require_free(path)
    if path.suffix == SUFFIX:
        write_bytes(path, _archive(contents))
        return
    with atomic_folder(path) as folder:
        for name, content in contents.items():
            write_bytes(folder / name, content)


def _archive(contents: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return stream.getvalue()


def _vocabulary_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        paths = (Path(folder, name) for name in (TOKENS_FILE, BPE_FILE))
        return {path.name: path.read_bytes() for path in paths if path.exists()}


def _letter_case(tokenizer: Tokenizer) -> LetterCase:
    """How transcripts were written, as the tokens that can be spoken tell it."""
    spoken = (token for token in tokenizer.id_to_token if not token.startswith("<"))
    return letter_case_of("".join(spoken).replace("▁", " "))
