"""Which files do the loaders read? One healthy example of each, and the way it is loaded.

Invariant: `load` uses all that a file gives (a chunk is computed, a text encoded), and raises
nothing for a healthy one.
"""

import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from snowmelt.checkpoint.experiment import load_experiment
from snowmelt.checkpoint.files import load_checkpoint, peek_checkpoint
from snowmelt.core.errors import UserError
from snowmelt.export.bundle import BundleOptions
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.bundle import Bundle
from snowmelt.runtime.bundle_store import SUMS_FILE, sums_text
from snowmelt.runtime.doctor import find_problems
from snowmelt.runtime.info import describe
from snowmelt.runtime.load import load_model
from snowmelt.runtime.load_bundle import torch_form
from snowmelt.text.graph import DecodingGraph, trivial_graph
from snowmelt.text.tokenizer import load_tokenizer, load_tokens, train_bpe
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS, tiny_tokenizer

__all__ = ["LOADERS", "write_healthy"]

_SENTENCE: Final = "A CAT AND A DOG SAT ON A LOG"


def write_healthy(folder: Path, encoder: str) -> None:
    """One healthy file of every format below `folder`.

    Args:
        folder: empty.
        encoder: name of a model of `TINY_MODELS`.
    """
    exp_dir = noisy_experiment(folder / "exp", TINY_MODELS[encoder])
    list(export(Source(exp_dir), Forms(jit=True, jit_trace=True)))
    list(export(Source(exp_dir), Forms(onnx=True), folder / "onnx"))
    alone = folder / "alone"
    tiny_tokenizer().save(alone)
    weights = load_checkpoint(exp_dir / "pretrained.pt")
    torch.save(weights, alone / "legacy.pt", _use_new_zipfile_serialization=False)
    bundle = BundleOptions(folder / "bundle")
    list(export(Source(exp_dir), Forms(bundle=bundle)))
    with zipfile.ZipFile(folder / "model.snowmelt", "w") as archive:
        for file in sorted((folder / "bundle").iterdir()):
            archive.write(file, file.name)
    train_bpe([_SENTENCE, "THE DOG AND THE CAT SAT"], 18).save(folder / "bpe")
    trivial_graph(30).save(folder / "LG.npz")


def _model(path: Path) -> None:
    load_model(path, device="cpu", num_threads=1)
    describe(path)
    find_problems(path)  # computes a chunk


def _bundle(path: Path) -> None:
    """The sums find all damage; with sums of its own a file must speak for itself."""
    bundle = path.parent
    with contextlib.suppress(UserError):
        _model(bundle)
    if path.name == SUMS_FILE:
        _model(bundle)
        return
    sums = bundle / SUMS_FILE
    healthy = sums.read_bytes()
    contents = {file.name: file.read_bytes() for file in bundle.iterdir() if file != sums}
    sums.write_text(sums_text(contents))
    try:
        _model(bundle)
        torch_form(Bundle(bundle), device="cpu")
    finally:
        sums.write_bytes(healthy)


def _checkpoint(path: Path) -> None:
    _model(path)
    peek_checkpoint(path)


def _tokens(path: Path) -> None:
    load_tokens(path)
    load_tokenizer(path.parent).encode(_SENTENCE)


def _kind(path: Path) -> None:
    load_tokenizer(path.parent).encode(_SENTENCE)


def _bpe(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode(_SENTENCE))


def _config(path: Path) -> None:
    load_experiment(path.parent)


LOADERS: Final[dict[str, Callable[[Path], object]]] = {
    "exp/pretrained.pt": _checkpoint,
    "alone/legacy.pt": _checkpoint,
    "exp/cpu_jit.pt": _model,
    "exp/encoder_jit_trace.pt": _model,
    "onnx/encoder-pretrained.onnx": _model,
    "onnx/decoder-pretrained.onnx": lambda path: _model(path.parent),
    "onnx/joiner-pretrained.onnx": lambda path: _model(path.parent),
    "onnx/tokens.txt": lambda path: _model(path.parent),
    "bundle/model.safetensors": _bundle,
    "bundle/bundle.json": _bundle,
    "bundle/SHA256SUMS": _bundle,
    "model.snowmelt": _model,
    "exp/lang/tokens.txt": _tokens,
    "exp/lang/tokenizer.yaml": _kind,
    "bpe/bpe.model": _bpe,
    "exp/config.yaml": _config,
    "LG.npz": DecodingGraph.load,
}
"""Path below the healthy folder -> the loader, given that path."""
