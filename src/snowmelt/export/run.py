"""What does `snowmelt export` write? The forms asked for, each compared before it is named.

    pretrained.pt                                        the averaged weights alone
    cpu_jit.pt                                           one scripted model
    encoder_jit_trace.pt, decoder_…, joiner_…            three traced ones
    encoder-S.onnx, decoder-S.onnx, joiner-S.onnx        for sherpa-onnx and our own runtime
    encoder-S.fp16.onnx, …; encoder-S.int8.onnx, …       the same, smaller
    int8-S.txt, int8-S.json                              what 8 bits cost and gain, with a gate
    a folder, or one file name.snowmelt                  a bundle: `export/bundle.py`

S says which checkpoints: epoch-E-avg-A or iter-I-avg-A, for a Zipformer with -with-averaged-model
where that option is on, as the original names its files.

Invariant: a file that does not compute what the trained model computes is not written.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import ConfigError
from snowmelt.core.files import write_bytes
from snowmelt.export.bundle import BundleOptions, bundle_contents, require_free, write_bundle
from snowmelt.export.gate_set import GateCuts, gate_utterances
from snowmelt.export.int8_gate import Gate, gated
from snowmelt.export.onnx import OnnxFiles, export_onnx
from snowmelt.export.quantize import quantized
from snowmelt.export.summary import training_summary
from snowmelt.export.torchscript import export_script, export_traced
from snowmelt.export.verify import compare, verify
from snowmelt.models.scaled_layers import fold_scales
from snowmelt.presets.models import ModelConfig, ZipformerConfig
from snowmelt.runtime.backend import Backend, SpeechModel
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels
from snowmelt.runtime.backends.torch_eager import TorchBackend
from snowmelt.runtime.backends.torchscript import (
    ScriptModels,
    scripted_backend,
    traced_backend,
)
from snowmelt.runtime.load import LoadedTransducer, WeightsChoice, load_transducer
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

__all__ = ["Forms", "GateOptions", "Source", "Written", "export"]

_logger = logging.getLogger(__name__)

_PRETRAINED: Final = "pretrained.pt"
_SCRIPTED: Final = "cpu_jit.pt"


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
class GateOptions:
    """A test of quantised files.

    Attributes:
        source: what they must recognise.
        max_wer_increase: points of word error rate that they may lose against float32.
    """

    source: GateCuts
    max_wer_increase: float = 0.5


@dataclass(frozen=True)
class Forms:
    """What is written; with nothing chosen, the weights alone.

    Attributes:
        jit: one scripted model.
        jit_trace: three traced ones.
        onnx: three ONNX files.
        fp16, int8: ONNX files in half precision, and quantised, beside the float32 ones.
        gate: what quantised files must recognise before they are written; None: nothing.
        bundle: one model that describes itself.
    """

    jit: bool = False
    jit_trace: bool = False
    onnx: bool = False
    fp16: bool = False
    int8: bool = False
    gate: GateOptions | None = None
    bundle: BundleOptions | None = None

    def __post_init__(self) -> None:
        for flag, is_asked in (("--fp16", self.fp16), ("--int8", self.int8)):
            if is_asked and not self.onnx:
                raise ConfigError(f"{flag} is a form of ONNX files", "add --onnx 1")
        if self.gate is not None and not self.int8:
            raise ConfigError("--gate-cuts is a test of quantised files", "add --int8 1")


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
    files = dataclasses.replace(forms, bundle=None)
    if forms.bundle is not None:
        require_free(forms.bundle.path)
    if forms.bundle is None or files != Forms():
        yield from _files(source, files, output_dir or source.exp_dir)
    if forms.bundle is not None:
        yield _bundle(source, forms.bundle)


def _files(source: Source, forms: Forms, folder: Path) -> Iterator[Written]:
    """All forms but the bundle."""
    if forms == Forms():
        # Never made from itself: without a choice, from the newest checkpoints there are.
        choice = source.weights or WeightsChoice()
        source = dataclasses.replace(source, weights=choice)
    loaded = _load(source, folded=forms != Forms())
    if folder != source.exp_dir:
        loaded.tokenizer.save(folder)
    if forms == Forms():
        yield _weights(loaded, folder)
    if forms.jit:
        content = export_script(loaded.model, _facts(loaded))
        remark = _verified(loaded, scripted_backend(content, unk_id=loaded.tokenizer.unk_id))
        yield Written(_write((content,), folder, (_SCRIPTED,)), remark)
    if forms.jit_trace:
        traced = export_traced(loaded.model, loaded.config.model, _facts(loaded))
        backend = traced_backend(ScriptModels(*traced), unk_id=loaded.tokenizer.unk_id)
        names = [f"{part}_jit_trace.pt" for part in traced._fields]
        yield Written(_write(traced, folder, names), _verified(loaded, backend))
    if forms.onnx:
        yield from _onnx_forms(source, loaded, forms, folder)


def _bundle(source: Source, options: BundleOptions) -> Written:
    """Both forms of the weights, compared as they will be loaded."""
    loaded = _load(source, folded=False)
    weights = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    fold_scales(loaded.model)
    onnx, remark = None, f"the weights of {loaded.weights}"
    if "onnx" in options.forms:
        onnx = _onnx(loaded)
        remark = _verified(loaded, _onnx_backend(onnx, loaded))
    choice = None if _takes_pretrained(source) else _choice(source)
    training = training_summary(source.exp_dir, loaded.config, choice, loaded.head)
    write_bundle(options.path, bundle_contents(loaded, weights, onnx, options, training))
    return Written((options.path,), remark)


def _weights(loaded: LoadedTransducer, folder: Path) -> Written:
    """pretrained.pt: the averaged weights under the original's names."""
    path = folder / _PRETRAINED
    save_checkpoint(path, {"model": loaded.model.state_dict(), "snowmelt": _facts(loaded)})
    return Written((path,), f"the weights of {loaded.weights}")


def _onnx_forms(
    source: Source, loaded: LoadedTransducer, forms: Forms, folder: Path
) -> Iterator[Written]:
    suffix = _suffix(source, loaded.config.model)
    gate = None if forms.gate is None else _gate(forms.gate, loaded)
    full = _onnx(loaded)
    remark = _verified(loaded, _onnx_backend(full, loaded))
    yield Written(_write(full, folder, _onnx_names(f"{suffix}.onnx")), remark)
    if forms.fp16:
        half = _onnx(loaded, half=True)
        remark = _rounded(loaded, _onnx_backend(half, loaded))
        yield Written(_write(half, folder, _onnx_names(f"{suffix}.fp16.onnx")), remark)
    if forms.int8 and gate is not None:
        small, report = gated(full, gate, lambda files: _speech_model(files, loaded))
        texts = [text.encode() for text in (report.as_text(), report.as_json())]
        paths = _write(small, folder, _onnx_names(f"{suffix}.int8.onnx"))
        paths += _write(texts, folder, [f"int8-{suffix}.txt", f"int8-{suffix}.json"])
        yield Written(paths, report.summary())
    elif forms.int8:
        small = quantized(full)
        remark = _rounded(loaded, _onnx_backend(small, loaded))
        yield Written(_write(small, folder, _onnx_names(f"{suffix}.int8.onnx")), remark)


def _load(source: Source, *, folded: bool) -> LoadedTransducer:
    loaded = load_transducer(
        source.exp_dir,
        weights=source.weights,
        head=source.head,
        decode_chunk_len=source.decode_chunk_len,
        folded=folded,
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
    if _takes_pretrained(source):
        return "pretrained"
    choice = _choice(source)
    if choice.iteration > 0:
        suffix = f"iter-{choice.iteration}-avg-{choice.avg}"
    else:
        suffix = f"epoch-{choice.epoch}-avg-{choice.avg}"
    is_named = choice.use_averaged_model and isinstance(config, ZipformerConfig)
    return f"{suffix}-with-averaged-model" if is_named else suffix


def _takes_pretrained(source: Source) -> bool:
    return source.weights is None and (source.exp_dir / _PRETRAINED).is_file()


def _choice(source: Source) -> WeightsChoice:
    return (source.weights or WeightsChoice()).resolved(source.exp_dir)


def _onnx_names(ending: str) -> list[str]:
    return [f"{part}-{ending}" for part in OnnxFiles._fields]


def _gate(options: GateOptions, loaded: LoadedTransducer) -> Gate:
    source = options.source
    utterances = gate_utterances(source, loaded.config.data, loaded.head)
    return Gate(source.cuts, utterances, options.max_wer_increase)


def _speech_model(files: OnnxFiles, loaded: LoadedTransducer) -> SpeechModel:
    config = loaded.config
    backend = _onnx_backend(files, loaded)
    return SpeechModel(backend, loaded.tokenizer, config.features, config.min_tail_s)


def _onnx(loaded: LoadedTransducer, *, half: bool = False) -> OnnxFiles:
    return export_onnx(loaded.model, loaded.config.model, **_facts(loaded), half=half)


def _facts(loaded: LoadedTransducer) -> dict[str, Any]:
    """What every exported file carries beside the original's contents."""
    return {
        "vocabulary_hash": vocabulary_hash(loaded.tokenizer),
        "min_tail_s": loaded.config.min_tail_s,
        "sample_rate": loaded.config.features.sample_rate,
    }


def _onnx_backend(files: OnnxFiles, loaded: LoadedTransducer) -> OnnxBackend:
    return OnnxBackend(OnnxModels(*files), unk_id=loaded.tokenizer.unk_id)


def _reference(loaded: LoadedTransducer) -> TorchBackend:
    return TorchBackend(loaded.model, loaded.config.model, unk_id=loaded.tokenizer.unk_id)


def _verified(loaded: LoadedTransducer, exported: Backend) -> str:
    return verify(_reference(loaded), exported, **_sizes(loaded))


def _rounded(loaded: LoadedTransducer, exported: Backend) -> str:
    differences = compare(_reference(loaded), exported, **_sizes(loaded))
    return f"rounded: differs on random chunks by {differences}"


def _sizes(loaded: LoadedTransducer) -> dict[str, int]:
    return {
        "num_features": loaded.config.model.feature_dim,
        "vocab_size": loaded.tokenizer.vocab_size,
    }


def _write(contents: Sequence[bytes], folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    paths = tuple(folder / name for name in names)
    for path, content in zip(paths, contents, strict=True):
        write_bytes(path, content)
    return paths
