"""What did quantising cost, and what did it gain? For people and for programs.

Invariant: every figure that decided is in it; plain values only.
"""

import json
from dataclasses import asdict, dataclass

__all__ = ["Int8Report", "LayerReport", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One choice of layers, and what it cost.

    Attributes:
        num_kept: layers in float32, the most harmful ones.
        wer: word error rate in per cent.
        errors: word errors.
    """

    num_kept: int
    wer: float
    errors: int


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: its place in the model.
        num_weights: its size.
        is_int8: whether it is quantised in the files.
        logit_error: root mean square that quantising it alone changes the logits by; None where
            nobody had to know: all layers together passed.
    """

    name: str
    num_weights: int
    is_int8: bool
    logit_error: float | None


@dataclass(frozen=True)
class Int8Report:
    """8-bit files against the float32 files beside them.

    Attributes:
        gate_cuts: what was recognised.
        num_utterances, num_words, audio_s: its size.
        max_wer_increase: how much higher the word error rate may be, in points.
        wer_float32, wer_int8: word error rates in per cent, greedy search.
        errors_float32, errors_int8: word errors.
        bytes_float32, bytes_int8: of the three files together.
        rtf_float32, rtf_int8: processor seconds a second of sound, one thread, 16 streams.
        logit_error: root mean square of the difference of the logits.
        trials: all that was tried, in order.
        layers: all that could be quantised.
    """

    gate_cuts: str
    num_utterances: int
    num_words: int
    audio_s: float
    max_wer_increase: float
    wer_float32: float
    wer_int8: float
    errors_float32: int
    errors_int8: int
    bytes_float32: int
    bytes_int8: int
    rtf_float32: float
    rtf_int8: float
    logit_error: float
    trials: tuple[Trial, ...]
    layers: tuple[LayerReport, ...]

    @property
    def kept(self) -> list[str]:
        """Names of the layers that stay float32."""
        return [layer.name for layer in self.layers if not layer.is_int8]

    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.layers) - len(self.kept)} of {len(self.layers)} layers in 8 bits: WER on "
            f"{self.gate_cuts} {self.wer_float32:.2f} -> {self.wer_int8:.2f} %, size "
            f"{self.bytes_int8 / self.bytes_float32:.2f}, "
            f"{self.rtf_float32 / self.rtf_int8:.2f} times as fast"
        )

    def as_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self) | {"kept": self.kept}, indent=2) + "\n"

    def as_text(self) -> str:
        """A summary, the trials, and the layers, the most harmful first."""
        lines = [
            f"int8 against float32 on {self.gate_cuts}: {self.num_utterances} utterances, "
            f"{self.num_words} words, {self.audio_s:.1f} s",
            "",
            f"WER    {self.wer_float32:.2f} -> {self.wer_int8:.2f} % "
            f"({self.errors_float32} -> {self.errors_int8} errors; "
            f"allowed: {self.max_wer_increase:+g} points)",
            f"size   {self.bytes_float32} -> {self.bytes_int8} bytes "
            f"({self.bytes_int8 / self.bytes_float32:.3f})",
            f"RTF    {self.rtf_float32:.4f} -> {self.rtf_int8:.4f} "
            f"({self.rtf_float32 / self.rtf_int8:.2f} times as fast)",
            f"logits differ by {self.logit_error:.3f} (root mean square)",
            f"layers {len(self.layers) - len(self.kept)} of {len(self.layers)} in 8 bits",
            "",
            "kept in float32   WER   errors",
            *(f"{t.num_kept:15d} {t.wer:6.2f} {t.errors:7d}" for t in self.trials),
            "",
            "layer, weights, form, error of the logits when it alone is quantised",
        ]
        for layer in sorted(self.layers, key=lambda each: -(each.logit_error or 0.0)):
            form = "int8" if layer.is_int8 else "float32"
            error = "" if layer.logit_error is None else f" {layer.logit_error:.4f}"
            lines.append(f"{layer.name} {layer.num_weights} {form}{error}")
        return "\n".join(lines) + "\n"
