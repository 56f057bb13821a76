"""Which cuts can a transducer learn from? Those neither too short nor too long for their text.

A transducer that emits at most one token per frame needs T >= S; lengths are counted after speed
perturbation, with the Zipformer's own formula.

Invariant: every dropped cut is named with its reason.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lhotse import CutSet
from lhotse.cut import Cut

from snowmelt.audio.fbank import FbankConfig
from snowmelt.data.cuts import cut_text
from snowmelt.data.stored_cuts import ChosenCuts, CutSequence, as_sequence
from snowmelt.presets.frames import num_encoder_frames
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["DroppedCuts", "filter_cuts"]


@dataclass(frozen=True)
class DroppedCuts:
    """What `filter_cuts` left out."""

    num_cuts: int  # before filtering
    reasons: tuple[tuple[str, str], ...]  # (cut id, reason)

    @property
    def counts(self) -> dict[str, int]:
        """Number of dropped cuts for each reason."""
        return dict(Counter(reason for _, reason in self.reasons))

    def __str__(self) -> str:
        if not self.reasons:
            return f"kept all {self.num_cuts} cuts"
        counts = ", ".join(f"{count} {reason}" for reason, count in self.counts.items())
        percent = 100 * len(self.reasons) / self.num_cuts
        return f"dropped {len(self.reasons)} of {self.num_cuts} cuts ({percent:.3g} %): {counts}"


def filter_cuts(
    cuts: CutSet,
    tokenizer: Tokenizer,
    *,
    min_duration: float = 1.0,
    max_duration: float = 20.0,
    fbank_config: FbankConfig | None = None,
) -> tuple[CutSet, DroppedCuts]:
    """Drop the cuts that cannot be trained on.

    Args:
        cuts: training cuts, speed copies included.
        tokenizer: turns transcripts into the tokens that are counted.
        min_duration: seconds, inclusive.
        max_duration: seconds, inclusive.
        fbank_config: says how many feature frames a cut has; None: the usual 80 bins at 16 kHz.

    Returns:
        The cuts that remain, in order, and what was dropped.

    Source: icefall, egs/librispeech/ASR/local/filter_cuts.py (the rule; there it runs before
    speed perturbation, where it lets some cuts pass that are too short afterwards).
    """
    config = FbankConfig() if fbank_config is None else fbank_config
    sequence = as_sequence(cuts)
    kept: list[int] = []
    dropped: list[tuple[str, str]] = []
    for number, cut in enumerate(sequence):
        text = cut_text(cut)
        if cut.duration < min_duration:
            dropped.append((cut.id, f"shorter than {min_duration:g} s"))
        elif cut.duration > max_duration:
            dropped.append((cut.id, f"longer than {max_duration:g} s"))
        elif not text:
            dropped.append((cut.id, "without a transcript"))
        elif _encoder_len(cut, config) < len(tokenizer.encode(text)):
            dropped.append((cut.id, "with more tokens than encoder frames"))
        else:
            kept.append(number)
    chosen: Sequence[Cut] = ChosenCuts(sequence, kept)
    if not isinstance(sequence, CutSequence):
        chosen = list(chosen)
    return CutSet(chosen), DroppedCuts(len(sequence), tuple(dropped))


def _encoder_len(cut: Cut, config: FbankConfig) -> int:
    # One that has stored features may have no sound.
    num_samples = cut.num_samples if cut.has_recording else cut.duration * cut.sampling_rate
    return num_encoder_frames(config.num_frames(round(num_samples)))
