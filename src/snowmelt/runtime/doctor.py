"""What is wrong with a model's file or folder, and what is to be done about it?

Invariant: a problem is one line with its advice; nothing raises but a mistake of the program. A
model without problems loads, computes finite numbers, and fits its vocabulary.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snowmelt.core.errors import UserError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends.onnx import OnnxModels
from snowmelt.runtime.bundle import ONNX_FILES, Bundle
from snowmelt.runtime.bundle_store import BundleStore
from snowmelt.runtime.doctor_onnx import contract_problems, metadata_problems
from snowmelt.runtime.hub import local_path
from snowmelt.runtime.info_kinds import Kind, kind_of
from snowmelt.runtime.load_bundle import onnx_form, torch_form
from snowmelt.runtime.model_in import model_in

__all__ = ["Problem", "find_problems"]


class Problem(NamedTuple):
    """One thing that is wrong, and the next step."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what} (hint: {self.advice})" if self.advice else self.what


def find_problems(path: str | Path) -> list[Problem]:
    """All problems of a model's file or folder, the first cause first; none: it is healthy.

    Args:
        path: as for `runtime.info.describe`.
    """
    try:
        path = local_path(path)
        path = model_in(path) if path.is_dir() else path
        return list(_problems(path, kind_of(path)))
    except UserError as error:
        return [Problem(error.message, error.hint)]


def _problems(path: Path, kind: Kind) -> Iterator[Problem]:
    from snowmelt.runtime.load import load_model
    from snowmelt.text.tokenizer import load_tokenizer, load_tokens

    if kind == "tokens":
        load_tokens(path)
        return
    if kind in ("bpe model", "vocabulary folder"):
        load_tokenizer(path)
        return
    if kind == "bundle":
        yield from _bundle(path)
        return
    if kind in ("onnx folder", "onnx file"):
        for encoder in _encoders(path):
            found = [Problem(*problem) for problem in metadata_problems(encoder)]
            yield from found
            if not found:
                yield from _computing(load_model(encoder))
        return
    yield from _computing(load_model(path, device="cpu"))


def _bundle(path: Path) -> Iterator[Problem]:
    """Every damaged file; if there is none, whether each form of the weights works."""
    store = BundleStore(path)
    damaged = False
    for name in store.names():
        try:
            store.read(name)
        except UserError as error:
            damaged = True
            yield Problem(error.message, error.hint)
    if damaged:
        return
    bundle = Bundle(path)
    if "onnx" in bundle.facts.weights:
        models = OnnxModels(*map(bundle.read, ONNX_FILES))
        found = [Problem(f"{path}: {what}", advice) for what, advice in contract_problems(models)]
        yield from found
        if not found:
            yield from _computing(onnx_form(bundle))
    if "safetensors" in bundle.facts.weights:
        yield from _computing(torch_form(bundle, device="cpu"))


def _encoders(path: Path) -> list[Path]:
    """The encoders of all sets in a folder, or of the set that a file belongs to."""
    if path.is_file():
        for part in ("decoder", "joiner"):
            if path.name.startswith(part):
                return [path.with_name("encoder" + path.name.removeprefix(part))]
        return [path]
    rests = set()
    for file in path.glob("*.onnx"):
        for part in ("encoder", "decoder", "joiner"):
            if file.name.startswith(part):
                rests.add(file.name.removeprefix(part))
    return [path / f"encoder{rest}" for rest in sorted(rests)] or [path / "encoder.onnx"]


def _computing(model: SpeechModel) -> Iterator[Problem]:
    """Whether a chunk of silence and every token give finite numbers of the right sizes."""
    backend, scorer = model.backend, model.backend.scorer
    window = backend.decode_chunk_len + backend.front_end.window_overlap
    features = np.full((1, window, model.features.num_mel_bins), -6.0, dtype=np.float32)
    ids = np.arange(model.tokenizer.vocab_size, dtype=np.int64)
    contexts = np.repeat(ids[:, None], scorer.context_size, axis=1)
    contexts[0, :-1] = -1  # how every search begins
    advice = "export it again, or take an earlier checkpoint: the training may have diverged"
    try:
        frames, _, _ = backend.encode(features, np.array([window]), [backend.init_state()])
        decoded = scorer.decode(contexts)
        logits = scorer.join(np.repeat(frames[0, :1], len(decoded), axis=0), decoded)
    except Exception as error:  # runtimes' exceptions have no common base
        first = next(iter(str(error).splitlines()), type(error).__name__)
        yield Problem(f"{model.weights} cannot compute one chunk: {first[:200]}", "export it again")
        return
    for what, values in (("encoder", frames), ("decoder", decoded), ("joiner", logits)):
        if not np.isfinite(values).all():
            yield Problem(f"the {what} of {model.weights} gives NaN or infinity", advice)
            return
    if logits.shape[1] != model.tokenizer.vocab_size:
        yield Problem(
            f"{model.weights} has {logits.shape[1]} tokens, the vocabulary beside it "
            f"{model.tokenizer.vocab_size}",
            "take the tokens.txt that the model was trained with",
        )
