"""Which files do the loaders read? One healthy example of each, and the way it is loaded.

Invariant: `load` uses all that a file gives (a chunk is computed, a text encoded), and raises
nothing for a healthy one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from snowmelt.checkpoint.experiment import load_experiment
from snowmelt.checkpoint.files import load_checkpoint, peek_checkpoint
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.doctor import find_problems
from snowmelt.runtime.info import describe
from snowmelt.runtime.load import load_model
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
    train_bpe([_SENTENCE, "THE DOG AND THE CAT SAT"], 18).save(folder / "bpe")
    trivial_graph(30).save(folder / "LG.npz")


def _model(path: Path) -> None:
    load_model(path, device="cpu", num_threads=1)
    describe(path)
    find_problems(path)  # computes a chunk


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
    "exp/lang/tokens.txt": _tokens,
    "exp/lang/tokenizer.yaml": _kind,
    "bpe/bpe.model": _bpe,
    "exp/config.yaml": _config,
    "LG.npz": DecodingGraph.load,
}
"""Path below the healthy folder -> the loader, given that path."""
