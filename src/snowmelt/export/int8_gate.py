"""Which layers may be rounded to 8 bits, so that a test set hardly notices?

First all of them are tried. If the word error rate rises by more than the gate allows, each layer
is rounded alone, and those that change the logits most stay float32: as few as pass the gate, found
by halving. Halving takes for granted that more layers in float32 do no harm; the choice that is
taken has been heard itself.

Invariant: what is handed out has passed the gate.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from snowmelt.core.errors import CheckpointError
from snowmelt.export.gate_set import GateUtterance, Heard, hear, logits
from snowmelt.export.int8_report import Int8Report, LayerReport, Trial
from snowmelt.export.onnx import OnnxFiles
from snowmelt.export.quantize import Layer, layers_of, quantized
from snowmelt.runtime.backend import SpeechModel

__all__ = ["Gate", "Gated", "gated"]

_logger = logging.getLogger(__name__)

# With fewer of the weights in 8 bits the files gain neither size nor speed worth their name.
_LEAST_SHARE: Final = 0.5

# Utterances whose logits rank the layers: some hundred frames tell outliers from others.
_NUM_RANKING: Final = 4


@dataclass(frozen=True)
class Gate:
    """What quantised files must pass.

    Attributes:
        name: of the set, for people.
        utterances: the set.
        max_wer_increase: points of word error rate that they may lose against float32.
    """

    name: str
    utterances: Sequence[GateUtterance]
    max_wer_increase: float


class Gated(NamedTuple):
    """Quantised files and how they did."""

    files: OnnxFiles
    report: Int8Report


def gated(full: OnnxFiles, gate: Gate, model_of: Callable[[OnnxFiles], SpeechModel]) -> Gated:
    """The 8-bit forms of float32 files that pass a gate.

    Args:
        full: float32.
        gate: what to pass.
        model_of: loads files.

    Raises:
        CheckpointError: no choice with half of the weights in 8 bits passes.
        UserError: the sound of an utterance cannot be used.
    """
    layers = layers_of(full)
    reference = model_of(full)
    yardstick = _Yardstick(reference, gate.utterances[:_NUM_RANKING])
    float32 = hear(reference, gate.utterances)
    _logger.info("float32: %s", float32.stats)
    tried: list[Trial] = []
    errors: dict[str, float] = {}  # the most harmful first

    def passing(num_kept: int) -> tuple[OnnxFiles, Heard] | None:
        """Files with so many layers in float32; None if they do not pass."""
        files = quantized(full, list(errors)[:num_kept])
        heard = hear(model_of(files), gate.utterances)
        tried.append(Trial(num_kept, heard.stats.wer, heard.stats.errors))
        _logger.info("int8, %d of %d layers in float32: %s", num_kept, len(layers), heard.stats)
        return (files, heard) if _rise(float32, heard) <= gate.max_wer_increase else None

    best, num_kept = passing(0), 0
    if best is None:
        errors |= _harm(full, layers, yardstick, model_of)
        most = _most_kept(layers, errors)
        best, num_kept = passing(most), most
        if best is None:
            raise CheckpointError(
                f"int8 raises the word error rate on {gate.name} from {float32.stats.wer:.2f} to "
                f"{tried[0].wer:.2f} %, with {most} of {len(layers)} layers in float32 to "
                f"{tried[-1].wer:.2f} %; allowed are {gate.max_wer_increase:g} points",
                "leave --int8 out, or allow more with --max-wer-increase",
            )
        failed = 0
        while num_kept - failed > 1:
            middle = (failed + num_kept) // 2
            found = passing(middle)
            if found is None:
                failed = middle
            else:
                best, num_kept = found, middle
    files, int8 = best
    kept = list(errors)[:num_kept]
    report = Int8Report(
        gate_cuts=gate.name,
        num_utterances=len(gate.utterances),
        num_words=float32.stats.num_ref_words,
        audio_s=float32.audio_s,
        max_wer_increase=gate.max_wer_increase,
        wer_float32=float32.stats.wer,
        wer_int8=int8.stats.wer,
        errors_float32=float32.stats.errors,
        errors_int8=int8.stats.errors,
        bytes_float32=sum(map(len, full)),
        bytes_int8=sum(map(len, files)),
        rtf_float32=float32.processor_s / float32.audio_s,
        rtf_int8=int8.processor_s / int8.audio_s,
        logit_error=yardstick.error(model_of(files)),
        trials=tuple(tried),
        layers=tuple(
            LayerReport(each.name, each.num_weights, each.name not in kept, errors.get(each.name))
            for each in layers
        ),
    )
    return Gated(files, report)


def _rise(float32: Heard, int8: Heard) -> float:
    """Points of word error rate; without the noise of their last digits."""
    return round(int8.stats.wer - float32.stats.wer, 9)


class _Yardstick:
    """How far a model's logits are from those of the float32 one.

    Args:
        reference: the float32 model.
        utterances: whose frames are compared.
    """

    def __init__(self, reference: SpeechModel, utterances: Sequence[GateUtterance]) -> None:
        self._utterances = utterances
        self._expected = logits(reference, utterances).astype(np.float64)

    def error(self, model: SpeechModel) -> float:
        """Root mean square of the difference."""
        return float(np.sqrt(np.mean((logits(model, self._utterances) - self._expected) ** 2)))


def _harm(
    full: OnnxFiles,
    layers: Sequence[Layer],
    yardstick: _Yardstick,
    model_of: Callable[[OnnxFiles], SpeechModel],
) -> dict[str, float]:
    """What each layer alone changes the logits by when it is rounded, the most harmful first."""
    _logger.info("Rounding each of %d layers alone", len(layers))
    names = {layer.name for layer in layers}
    errors = {name: yardstick.error(model_of(quantized(full, names - {name}))) for name in names}
    return dict(sorted(errors.items(), key=lambda item: (-item[1], item[0])))


def _most_kept(layers: Sequence[Layer], errors: Mapping[str, float]) -> int:
    """How many of the most harmful layers may stay float32 before too few weights are rounded."""
    sizes = {layer.name: layer.num_weights for layer in layers}
    kept = np.cumsum([sizes[name] for name in errors])
    return int((kept <= (1.0 - _LEAST_SHARE) * sum(sizes.values())).sum())
