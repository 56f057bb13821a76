"""What does `snowmelt export` write? The forms asked for, each compared before it is named.

    pretrained.pt                                        the averaged weights alone
    encoder-S.onnx, decoder-S.onnx, joiner-S.onnx        for sherpa-onnx and our own runtime
    encoder-S.fp16.onnx, …; encoder-S.int8.onnx, …       the same, smaller

S says which checkpoints: epoch-E-avg-A or iter-I-avg-A, for a Zipformer with -with-averaged-model
where that option is on, as the original names its files.

Invariant: a file that does not compute what the trained model computes is not written.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import ConfigError
from snowmelt.core.files import write_bytes
from snowmelt.export.onnx import OnnxFiles, export_onnx
from snowmelt.export.verify import Differences, compare, verify
from snowmelt.presets.models import ModelConfig, ZipformerConfig
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels
from snowmelt.runtime.backends.torch_eager import TorchBackend
from snowmelt.runtime.load import LoadedTransducer, WeightsChoice, load_transducer
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

__all__ = ["Forms", "Source", "Written", "export"]

_logger = logging.getLogger(__name__)

_PRETRAINED: str = "pretrained.pt"


@dataclass(frozen=True)
class Source:
    """Which weights are exported.

    Attributes:
        exp_dir: the experiment.
        weights: which of its checkpoints; None: its pretrained.pt, or the newest average.
        head: of a training on several corpora.
        decode_chunk_len: feature frames of 10 ms in a chunk; None: as trained.
        tokenizer: a vocabulary that must be the experiment's; None: not checked.
    """

    exp_dir: Path
    weights: WeightsChoice | None = None
    head: str = MAIN_HEAD
    decode_chunk_len: int | None = None
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class Forms:
    """What is written; with nothing chosen, the weights alone."""

    onnx: bool = False
    fp16: bool = False


@dataclass(frozen=True)
class Written:
    """One form: its files, and how it was checked."""

    files: tuple[Path, ...]
    remark: str


def export(source: Source, forms: Forms, output_dir: Path | None = None) -> Iterator[Written]:
    """Write the forms one after the other.

    Args:
        source: what to export.
        forms: as what.
        output_dir: where; None: into the experiment.

    Yields:
        each form when it is written.

    Raises:
        UserError: the weights cannot be loaded, a file cannot be written, or a package is missing.
        SnowmeltError: a form does not compute what the model computes (a bug).
    """
    folder = source.exp_dir if output_dir is None else output_dir
    if not forms.onnx and forms.fp16:
        raise ConfigError("--fp16 is a form of ONNX files", "add --onnx 1")
    loaded = _loaded(source)
    config = loaded.config.model
    reference = TorchBackend(loaded.model, config, unk_id=loaded.tokenizer.unk_id)
    if folder != source.exp_dir:
        loaded.tokenizer.save(folder)
    suffix = _suffix(source, config)
    vocab_size = loaded.tokenizer.vocab_size
    if forms.onnx:
        files = export_onnx(loaded.model, config, min_tail_s=loaded.config.min_tail_s)
        remark = verify(
            reference,
            _backend(files, loaded),
            num_features=config.feature_dim,
            vocab_size=vocab_size,
        )
        yield Written(_write(files, folder, f"{suffix}.onnx"), remark)
    if forms.fp16:
        files = export_onnx(loaded.model, config, min_tail_s=loaded.config.min_tail_s, half=True)
        differences = compare(
            reference,
            _backend(files, loaded),
            num_features=config.feature_dim,
            vocab_size=vocab_size,
        )
        yield Written(_write(files, folder, f"{suffix}.fp16.onnx"), _rounded(differences))


def _loaded(source: Source) -> LoadedTransducer:
    loaded = load_transducer(
        source.exp_dir,
        weights=source.weights,
        head=source.head,
        decode_chunk_len=source.decode_chunk_len,
    )
    given = source.tokenizer
    if given is not None and vocabulary_hash(given) != vocabulary_hash(loaded.tokenizer):
        raise ConfigError(
            f"the vocabulary given has {given.vocab_size} tokens and is not the one "
            f"{source.exp_dir} was trained with ({loaded.tokenizer.vocab_size})",
            "leave --tokens and --bpe-model out: the experiment holds its own",
        )
    _logger.info("Exporting %s", loaded.weights)
    return loaded


def _suffix(source: Source, config: ModelConfig) -> str:
    """What the files are called: which checkpoints they come from."""
    if source.weights is None and (source.exp_dir / _PRETRAINED).is_file():
        return "pretrained"
    choice = (source.weights or WeightsChoice()).resolved(source.exp_dir)
    if choice.iteration > 0:
        suffix = f"iter-{choice.iteration}-avg-{choice.avg}"
    else:
        suffix = f"epoch-{choice.epoch}-avg-{choice.avg}"
    is_named = choice.use_averaged_model and isinstance(config, ZipformerConfig)
    return f"{suffix}-with-averaged-model" if is_named else suffix


def _backend(files: OnnxFiles, loaded: LoadedTransducer) -> OnnxBackend:
    return OnnxBackend(OnnxModels(*files), unk_id=loaded.tokenizer.unk_id)


def _write(files: OnnxFiles, folder: Path, ending: str) -> tuple[Path, ...]:
    paths = []
    for part, content in zip(files._fields, files, strict=True):
        path = folder / f"{part}-{ending}"
        write_bytes(path, content)
        paths.append(path)
    return tuple(paths)


def _rounded(differences: Differences) -> str:
    return f"rounded: differs on random chunks by {differences}"
