"""How does a path become a model that can recognise?

    exp_dir                    an experiment: its pretrained.pt, or an average of its checkpoints
    exp_dir/<checkpoint>.pt    the weights of one file; config.yaml and lang/ lie beside it
    pretrained.pt              weights alone, with tokens.txt or bpe.model beside it
    folder                     three ONNX files and tokens.txt
    folder/encoder<...>.onnx   one of several such sets
    cpu_jit.pt                 a scripted model, with its vocabulary beside it
    encoder_jit_trace.pt       a traced one, with decoder_jit_trace.pt and joiner_jit_trace.pt
    ModelFiles                 three traced or ONNX files of any names
    name.snowmelt, folder      a bundle
    hf:owner/name              any of these in a repository of Hugging Face

Invariant: torch is imported inside functions only, when a model that needs it is really loaded.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snowmelt.checkpoint.experiment import ExperimentConfig, load_experiment
from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import CheckpointError
from snowmelt.presets.models import ModelConfig, ZipformerConfig
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.bundle import Bundle
from snowmelt.runtime.bundle_store import is_bundle
from snowmelt.runtime.dimensions import check_dimensions, dimensions_of
from snowmelt.runtime.filled import filled_transducer
from snowmelt.runtime.hub import local_path
from snowmelt.runtime.load_bundle import load_bundle
from snowmelt.runtime.load_onnx import load_onnx
from snowmelt.runtime.model_files import ModelFiles
from snowmelt.runtime.model_in import model_in
from snowmelt.runtime.vocabulary import require_vocabulary, tokenizer_beside
from snowmelt.runtime.weights_choice import WeightsChoice
from snowmelt.search.methods import SearchOptions
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

if TYPE_CHECKING:
    from snowmelt.models.transducer import Transducer

__all__ = [
    "LoadedTransducer",
    "WeightsChoice",
    "default_search",
    "load_model",
    "load_transducer",
]

_logger = logging.getLogger(__name__)

# What `export` makes of an average.
_EXPORTED_NAME: Final = "pretrained.pt"


class LoadedTransducer(NamedTuple):
    """A trained model in torch, with what it was trained with.

    Attributes:
        model: with one head.
        config: the experiment's; its `model.decode_chunk_len` is the one asked for.
        tokenizer: of its vocabulary.
        weights: which files they came from, for people.
        head: whose decoder and joiner these are.
    """

    model: "Transducer"
    config: ExperimentConfig
    tokenizer: Tokenizer
    weights: str
    head: str


def load_model(
    path: str | Path | ModelFiles,
    *,
    weights: WeightsChoice | None = None,
    head: str = MAIN_HEAD,
    decode_chunk_len: int | None = None,
    num_left_chunks: int | None = None,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    num_threads: int | None = None,
) -> SpeechModel:
    """Load a trained model, whatever form it has; its `weights` and the log say what was chosen.

    Of a folder, without options: a bundle; else an experiment's pretrained.pt, or the newest
    average of its checkpoints if there is none; else ONNX files; else weights alone; else a
    TorchScript program (`runtime.model_in`). Of a bundle: its ONNX files, unless the options ask
    for what only the weights for torch can do.

    Args:
        path: an experiment's folder, or one of its checkpoint files; pretrained.pt with its
            vocabulary; a bundle, folder or file; a folder with three ONNX files and tokens.txt, or
            the encoder among them; cpu_jit.pt or encoder_jit_trace.pt; three files by name; or
            hf:owner/name, a repository of Hugging Face with any of these.
        weights: which checkpoints of a folder to average; None for its pretrained.pt, or the
            newest average if there is none. A file is taken as it is.
        head: of a training on several corpora, whose decoder and joiner to use: "main", or the
            short name of another corpus, as in `decoder_<name>`.
        decode_chunk_len: feature frames of 10 ms the encoder advances by; None: as trained, or as
            exported. ONNX files cannot be changed.
        num_left_chunks: chunks of left context of a Zipformer's attention; None: as trained, for
            weights alone the recipe's four. Exported files cannot be changed.
        tokenizer: the vocabulary, for files without one beside them; of an experiment it must be
            its own.
        device: auto, cpu, cuda or mps; ONNX files run on the CPU.
        num_threads: CPU threads of one calculation; None: torch's present number, or one for ONNX
            files.

    Raises:
        UserError: a file is missing or damaged, or does not fit the model; no such head or device.

    Example:
        model = load_model("digits.snowmelt")
        print(model.weights)  # digits.snowmelt (ONNX)
        recognizer = OnlineRecognizer(model)
    """
    path = path if isinstance(path, ModelFiles) else _found(path)
    model = _loaded(
        path,
        _Asked(weights, head, decode_chunk_len, num_left_chunks, tokenizer, device, num_threads),
    )
    if num_left_chunks is not None:
        asked = {"num_left_chunks": num_left_chunks}
        if check_dimensions(model.dimensions, asked, model.weights):
            raise CheckpointError(f"{model.weights} does not say what its left context is")
    _logger.info("Model: %s", model.weights)
    return model


def default_search(path: str | Path | ModelFiles) -> SearchOptions:
    """How a model recognises where nothing else is asked for, before it is loaded.

    Raises:
        UserError: it does not exist, or is a damaged bundle.
    """
    if isinstance(path, ModelFiles):
        return SearchOptions()
    path = _found(path)
    return Bundle(path).facts.search if is_bundle(path) else SearchOptions()


class _Asked(NamedTuple):
    """The options of `load_model`."""

    weights: WeightsChoice | None
    head: str
    decode_chunk_len: int | None
    num_left_chunks: int | None
    tokenizer: Tokenizer | None
    device: str
    num_threads: int | None


def _loaded(path: Path | ModelFiles, asked: _Asked) -> SpeechModel:
    """The model of a path, by what the path is."""
    fixed = {
        "averaging checkpoints": asked.weights is not None,
        "another head": asked.head != MAIN_HEAD,
    }
    if isinstance(path, Path) and is_bundle(path):
        _refuse(fixed, f"{path} is a bundle")
        return load_bundle(
            Bundle(path),
            decode_chunk_len=asked.decode_chunk_len,
            tokenizer=asked.tokenizer,
            device=asked.device,
            num_threads=asked.num_threads,
        )
    if _is_onnx(path):
        fixed[f"device {asked.device}"] = asked.device not in ("auto", "cpu")
        _refuse(fixed, f"{path} holds ONNX files")
        return load_onnx(
            path,
            decode_chunk_len=asked.decode_chunk_len,
            tokenizer=asked.tokenizer,
            num_threads=asked.num_threads or 1,
        )

    import torch

    from snowmelt.checkpoint.files import is_torchscript
    from snowmelt.models.device import pick_device
    from snowmelt.runtime.backends.torch_eager import TorchBackend
    from snowmelt.runtime.load_torchscript import load_torchscript

    if asked.num_threads is not None:
        torch.set_num_threads(asked.num_threads)
    torch_device = pick_device(asked.device)
    if isinstance(path, ModelFiles) or (path.is_file() and is_torchscript(path)):
        _refuse(fixed, f"{path} is a TorchScript program")
        return load_torchscript(
            path,
            decode_chunk_len=asked.decode_chunk_len,
            tokenizer=asked.tokenizer,
            device=torch_device,
        )
    network, config, tokenizer, description, head = load_transducer(
        path,
        weights=asked.weights,
        head=asked.head,
        decode_chunk_len=asked.decode_chunk_len,
        num_left_chunks=asked.num_left_chunks,
        tokenizer=asked.tokenizer,
    )
    return SpeechModel(
        backend=TorchBackend(network, config.model, unk_id=tokenizer.unk_id, device=torch_device),
        tokenizer=tokenizer,
        features=config.features,
        min_tail_s=config.min_tail_s,
        weights=description,
        head=head,
        dimensions=dimensions_of(config.model),
    )


def load_transducer(
    path: str | Path,
    *,
    weights: WeightsChoice | None = None,
    head: str = MAIN_HEAD,
    decode_chunk_len: int | None = None,
    num_left_chunks: int | None = None,
    tokenizer: Tokenizer | None = None,
    folded: bool = True,
) -> LoadedTransducer:
    """Load a trained model's networks into CPU memory, in evaluation mode.

    Args:
        path, weights, head, decode_chunk_len, num_left_chunks, tokenizer: as in `load_model`, for
            torch's files.
        folded: the scales that LSTM transducers have beside their weights are multiplied in; if
            False the state dict has the original's names.

    Raises:
        UserError: as `load_model`.
    """
    path = _found(path)
    if path.is_file() and not (path.parent / "config.yaml").exists():
        config, tokenizer = _guessed(path, tokenizer)
    else:
        config, own = load_experiment(path if path.is_dir() else path.parent)
        if tokenizer is not None and vocabulary_hash(tokenizer) != vocabulary_hash(own):
            raise CheckpointError(
                f"the vocabulary given has {tokenizer.vocab_size} tokens and is not the one that "
                f"{path} was trained with ({own.vocab_size})",
                "leave --tokens and --bpe-model out: the experiment holds its own",
            )
        tokenizer = own
    part = config.data.part_of_head(head)
    if head in (part.label, part.corpus):
        head = MAIN_HEAD if part == config.data.parts[0] else part.label
    config = dataclasses.replace(
        config, model=_with_chunks(config.model, decode_chunk_len, num_left_chunks)
    )

    source, description = _chosen_weights(path, weights)
    ours = source.get("snowmelt")
    if isinstance(ours, Mapping):
        require_vocabulary(tokenizer, ours.get("vocabulary_hash"), description)
    model = filled_transducer(
        source,
        config.model,
        vocab_size=tokenizer.vocab_size,
        head=head,
        name=description,
        folded=folded,
    )
    return LoadedTransducer(model, config, tokenizer, description, head)


def _with_chunks(
    config: ModelConfig, decode_chunk_len: int | None, num_left_chunks: int | None
) -> ModelConfig:
    if decode_chunk_len is not None:
        config = dataclasses.replace(config, decode_chunk_len=decode_chunk_len)
    if num_left_chunks is not None and isinstance(config, ZipformerConfig):
        config = dataclasses.replace(config, num_left_chunks=num_left_chunks)
    return config


def _guessed(path: Path, tokenizer: Tokenizer | None) -> tuple[ExperimentConfig, Tokenizer]:
    """What weights that come alone were trained with, as far as their shapes say."""
    from snowmelt.checkpoint.files import load_checkpoint
    from snowmelt.checkpoint.icefall import model_config_of, state_dict_of

    model = model_config_of(state_dict_of(load_checkpoint(path), str(path)), str(path))
    return ExperimentConfig(model=model), tokenizer or tokenizer_beside(path)


def _found(path: str | Path) -> Path:
    """The model itself: a file or a folder on this machine."""
    path = local_path(path)
    if not path.exists():
        raise CheckpointError(
            f"model {path} does not exist",
            "give an experiment's folder, a checkpoint file, a bundle or a folder of ONNX files",
        )
    return model_in(path) if path.is_dir() else path


def _refuse(asked: Mapping[str, bool], what_it_is: str) -> None:
    """What is fixed in exported files cannot be asked for."""
    for what in (what for what, is_asked in asked.items() if is_asked):
        raise CheckpointError(f"{what_it_is}: {what} is not possible with it")


def _is_onnx(path: Path | ModelFiles) -> bool:
    if isinstance(path, ModelFiles):
        return path.form() == "onnx"
    if path.is_file():
        return path.suffix == ".onnx"
    # An experiment may hold exported files beside its checkpoints.
    return not (path / "config.yaml").exists() and any(path.glob("encoder*.onnx"))


def _chosen_weights(path: Path, weights: WeightsChoice | None) -> tuple[dict[str, Any], str]:
    """A checkpoint or averaged weights, and what to call them."""
    from snowmelt.checkpoint.average import find_checkpoints, load_average
    from snowmelt.checkpoint.files import load_checkpoint

    if path.is_file():
        return load_checkpoint(path), str(path)
    exported = path / _EXPORTED_NAME
    if weights is None and exported.is_file():
        return load_checkpoint(exported), str(exported)
    choice = (weights or WeightsChoice()).resolved(path)
    assert choice.avg is not None, choice
    files = find_checkpoints(
        path,
        epoch=choice.epoch,
        iteration=choice.iteration,
        avg=choice.avg,
        use_averaged_model=choice.use_averaged_model,
    )
    return load_average(files), f"{path}, {files}"
