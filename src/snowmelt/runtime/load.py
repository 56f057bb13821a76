"""How does a path become a model that can recognise?

    exp_dir                    an experiment: its pretrained.pt, or an average of its checkpoints
    exp_dir/<checkpoint>.pt    the weights of one file; config.yaml and lang/ lie beside it
    pretrained.pt              weights alone, with tokens.txt or bpe.model beside it
    folder                     three ONNX files and tokens.txt
    folder/encoder<...>.onnx   one of several such sets
    cpu_jit.pt                 a scripted model, with its vocabulary beside it
    encoder_jit_trace.pt       a traced one, with decoder_jit_trace.pt and joiner_jit_trace.pt

Invariant: torch is imported inside functions only, when a model that needs it is really loaded.
"""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from snowmelt.audio.fbank import FbankConfig
from snowmelt.checkpoint.experiment import (
    ExperimentConfig,
    load_experiment,
    numbered_checkpoints,
)
from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends.onnx import OnnxBackend, find_onnx_files
from snowmelt.text.tokenizer import Tokenizer, load_tokenizer, load_tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snowmelt.models.transducer import Transducer

__all__ = [
    "LoadedTransducer",
    "WeightsChoice",
    "load_model",
    "load_transducer",
    "tokenizer_beside",
]

# As many epochs as the original's decode.py averages; a shorter run averages what it has.
_DEFAULT_AVG: Final = 9

# What `export` makes of an average.
_EXPORTED_NAME: Final = "pretrained.pt"


@dataclass(frozen=True)
class WeightsChoice:
    """Which checkpoints of an experiment are averaged; names are the recipe's options.

    Attributes:
        epoch: last epoch, counted from 1; None for the newest one.
        iteration: above 0, take checkpoint-<iteration>.pt and those before it, not epochs.
        avg: how many epochs (or checkpoints); None for nine, or as many as there are.
        use_averaged_model: average with the running means that training keeps, over all batches
            of these epochs, and not only the models at their ends.
    """

    epoch: int | None = None
    iteration: int = 0
    avg: int | None = None
    use_averaged_model: bool = True

    def resolved(self, exp_dir: Path) -> "WeightsChoice":
        """The same choice with every number filled in.

        Raises:
            CheckpointError: the experiment has no checkpoint.
        """
        if not exp_dir.is_dir():
            raise CheckpointError(
                f"the experiment {exp_dir} is no folder", "give the --exp-dir of a training"
            )
        if self.iteration > 0:
            numbers = numbered_checkpoints(exp_dir, "checkpoint")
            # The running mean needs one checkpoint more: the one before the first.
            available = sum(n <= self.iteration for n in numbers) - self.use_averaged_model
            return dataclasses.replace(self, avg=self.avg or max(1, min(_DEFAULT_AVG, available)))
        epochs = numbered_checkpoints(exp_dir, "epoch")
        epoch = self.epoch
        if epoch is None:
            epoch = max(epochs, default=0)
        if epoch == 0:
            raise CheckpointError(
                f"{exp_dir} has no epoch-N.pt", "train at least one epoch, or choose --iter"
            )
        return dataclasses.replace(self, epoch=epoch, avg=self.avg or self._most(epoch, epochs))

    def _most(self, epoch: int, epochs: Container[int]) -> int:
        """How many epochs up to `epoch` can be averaged, at most the default."""
        wanted = min(_DEFAULT_AVG, epoch)
        for avg in range(wanted, 0, -1):
            # The running mean needs the file before the first only, if there is one at all.
            needed = (epoch - avg,) if self.use_averaged_model else range(epoch - avg + 1, epoch)
            if all(number == 0 or number in epochs for number in needed):
                return avg
        return wanted  # whose files are then said to be missing


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
    path: str | Path,
    *,
    weights: WeightsChoice | None = None,
    head: str = MAIN_HEAD,
    decode_chunk_len: int | None = None,
    device: str = "auto",
    num_threads: int | None = None,
) -> SpeechModel:
    """Load a trained model.

    Args:
        path: an experiment's folder, or one of its checkpoint files; a folder with three ONNX files
            and tokens.txt, or the encoder among them.
        weights: which checkpoints of a folder to average; None for its pretrained.pt, or the
            newest average if there is none. A file is taken as it is.
        head: of a training on several corpora, whose decoder and joiner to use: "main", or the
            short name of another corpus, as in `decoder_<name>`.
        decode_chunk_len: feature frames of 10 ms the encoder advances by; None for the value in
            config.yaml, or that of the ONNX files, which cannot be changed.
        device: auto, cpu, cuda or mps; ONNX files run on the CPU.
        num_threads: CPU threads of one calculation; None: torch's present number, or one for ONNX
            files.

    Raises:
        UserError: a file is missing or damaged, or does not fit the model; no such head or device.

    Example:
        recognizer = OnlineRecognizer(load_model("runs/digits"))
    """
    path = _existing(path)
    if _is_onnx(path):
        asked = {
            "averaging checkpoints": weights is not None,
            "another head": head != MAIN_HEAD,
            f"device {device}": device not in ("auto", "cpu"),
        }
        for what in (what for what, is_asked in asked.items() if is_asked):
            raise CheckpointError(f"{path} holds ONNX files: {what} is not possible with them")
        return _load_onnx(path, decode_chunk_len, num_threads or 1)

    import torch

    from snowmelt.checkpoint.files import is_torchscript
    from snowmelt.models.device import pick_device
    from snowmelt.runtime.backends.torch_eager import TorchBackend

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch_device = pick_device(device)
    if path.is_file() and is_torchscript(path):
        return _load_script(path, decode_chunk_len, torch_device)
    model, config, tokenizer, description, head = load_transducer(
        path, weights=weights, head=head, decode_chunk_len=decode_chunk_len
    )
    return SpeechModel(
        backend=TorchBackend(model, config.model, unk_id=tokenizer.unk_id, device=torch_device),
        tokenizer=tokenizer,
        features=config.features,
        min_tail_s=config.min_tail_s,
        weights=description,
        head=head,
    )


def load_transducer(
    path: str | Path,
    *,
    weights: WeightsChoice | None = None,
    head: str = MAIN_HEAD,
    decode_chunk_len: int | None = None,
    folded: bool = True,
) -> LoadedTransducer:
    """Load a trained model's networks into CPU memory, in evaluation mode.

    Args:
        path, weights, head, decode_chunk_len: as in `load_model`, for torch's files.
        folded: the scales that LSTM transducers have beside their weights are multiplied in; if
            False the state dict has the original's names.

    Raises:
        UserError: as `load_model`.
    """
    path = _existing(path)
    if path.is_file() and not (path.parent / "config.yaml").exists():
        config, tokenizer = _guessed(path)
    else:
        config, tokenizer = load_experiment(path if path.is_dir() else path.parent)
    part = config.data.part_of_head(head)
    if head in (part.label, part.corpus):
        head = MAIN_HEAD if part == config.data.parts[0] else part.label
    if decode_chunk_len is not None:
        model_config = dataclasses.replace(config.model, decode_chunk_len=decode_chunk_len)
        config = dataclasses.replace(config, model=model_config)

    from snowmelt.checkpoint.icefall import load_icefall
    from snowmelt.models.build import build_transducer
    from snowmelt.models.scaled_layers import fold_scales

    model = build_transducer(config.model, tokenizer.vocab_size)
    source, description = _chosen_weights(path, weights)
    load_icefall(source, model, head=head, name=description)
    if folded:
        fold_scales(model)
    for name, parameter in model.named_parameters():
        # Such a model would not fail: it would find silence in everything.
        if not bool(parameter.isfinite().all()):
            raise CheckpointError(
                f"the weights of {description} are not finite numbers ({name})",
                "the training has diverged; choose an earlier checkpoint",
            )
    return LoadedTransducer(model.eval(), config, tokenizer, description, head)


def _guessed(path: Path) -> tuple[ExperimentConfig, Tokenizer]:
    """What weights that come alone were trained with, as far as their shapes say."""
    from snowmelt.checkpoint.files import load_checkpoint
    from snowmelt.checkpoint.icefall import model_config_of, state_dict_of

    model = model_config_of(state_dict_of(load_checkpoint(path), str(path)), str(path))
    return ExperimentConfig(model=model), tokenizer_beside(path)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"model {path} does not exist",
            "give an experiment's folder, a checkpoint file or a folder of ONNX files",
        )
    return path


def _is_onnx(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".onnx"
    # An experiment may hold exported files beside its checkpoints.
    return not (path / "config.yaml").exists() and any(path.glob("encoder*.onnx"))


def _load_onnx(path: Path, decode_chunk_len: int | None, num_threads: int) -> SpeechModel:
    models = find_onnx_files(path)
    assert isinstance(models.encoder, Path), models
    tokenizer = tokenizer_beside(models.encoder)
    backend = OnnxBackend(models, unk_id=tokenizer.unk_id, num_threads=num_threads)
    if decode_chunk_len not in (None, backend.decode_chunk_len):
        raise CheckpointError(
            f"{models.encoder} takes chunks of {backend.decode_chunk_len} frames, not of "
            f"{decode_chunk_len}",
            f"export it again with --decode-chunk-len {decode_chunk_len}",
        )
    if backend.scorer.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{models.decoder!s} has {backend.scorer.vocab_size} tokens, the vocabulary beside it "
            f"{tokenizer.vocab_size}",
            "take the tokens.txt that the model was trained with",
        )
    return SpeechModel(
        backend=backend,
        tokenizer=tokenizer,
        features=FbankConfig(num_mel_bins=backend.num_features),
        min_tail_s=_tail(backend, models.encoder),
        weights=str(models.encoder),
    )


def _load_script(path: Path, decode_chunk_len: int | None, device: "torch.device") -> SpeechModel:
    from snowmelt.runtime.backends.torchscript import (
        ScriptModels,
        scripted_backend,
        traced_backend,
    )

    tokenizer = tokenizer_beside(path)
    if path.name.startswith("encoder"):
        rest = path.name.removeprefix("encoder")
        models = ScriptModels(
            path, path.with_name(f"decoder{rest}"), path.with_name(f"joiner{rest}")
        )
        backend = traced_backend(models, unk_id=tokenizer.unk_id, device=device)
        if decode_chunk_len not in (None, backend.decode_chunk_len):
            raise CheckpointError(
                f"{path} takes chunks of {backend.decode_chunk_len} frames, not of "
                f"{decode_chunk_len}",
                f"export it again with --decode-chunk-len {decode_chunk_len}",
            )
    else:
        backend = scripted_backend(
            path, unk_id=tokenizer.unk_id, decode_chunk_len=decode_chunk_len, device=device
        )
    return SpeechModel(backend=backend, tokenizer=tokenizer, weights=str(path))


def _tail(backend: OnnxBackend, encoder: Path) -> float:
    """The tail that the exporter stored; files from elsewhere have the usual one."""
    stored = backend.metadata.get("min_tail_s", "0.4")
    try:
        return float(stored)
    except ValueError:
        raise CheckpointError(f"{encoder} says min_tail_s is {stored!r}", "") from None


def tokenizer_beside(model: Path) -> Tokenizer:
    """The vocabulary of a model's file: of the experiment it lies in, or beside it.

    Raises:
        DataError: there is none, or it is malformed.
    """
    folder = model.parent
    if (folder / "lang").is_dir():
        return load_tokenizer(folder / "lang")
    has_kind = any((folder / name).exists() for name in ("tokenizer.yaml", "bpe.model"))
    if not has_kind and (folder / "tokens.txt").exists():
        # Files made for other runtimes: enough to print words.
        return load_tokens(folder / "tokens.txt")
    return load_tokenizer(folder)


def _chosen_weights(
    path: Path, weights: WeightsChoice | None
) -> "tuple[Path | dict[str, Tensor], str]":
    """A checkpoint file or averaged weights, and what to call them."""
    from snowmelt.checkpoint.average import find_checkpoints, load_average

    if path.is_file():
        return path, str(path)
    exported = path / _EXPORTED_NAME
    if weights is None and exported.is_file():
        return exported, str(exported)
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
