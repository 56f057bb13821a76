"""How is a run going? Sums of losses over frames, decayed over batches, and their log lines.

Invariant: plain floats; formatting follows the original's log so that its tools can read ours.
"""

from dataclasses import astuple, dataclass

__all__ = ["LossTotals", "format_totals"]


@dataclass(frozen=True)
class LossTotals:
    """Losses in nats summed over utterances, and what they cover.

    `frames` counts encoder frames, `feature_frames` feature frames; `padding` sums up, over the
    utterances, the share of their row in the batch that is padding.
    """

    loss: float = 0.0
    simple_loss: float = 0.0
    pruned_loss: float = 0.0
    ctc_loss: float = 0.0
    frame_loss: float = 0.0
    frames: float = 0.0
    utterances: float = 0.0
    feature_frames: float = 0.0
    padding: float = 0.0

    def __add__(self, other: "LossTotals") -> "LossTotals":
        return LossTotals(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def decayed(self, reset_interval: int) -> "LossTotals":
        """The totals with each batch's weight lowered by 1/reset_interval."""
        return LossTotals(*(v * (1.0 - 1.0 / reset_interval) for v in self.values()))

    def values(self) -> tuple[float, ...]:
        """The sums, in the order of the constructor."""
        return astuple(self)

    def covered(self) -> dict[str, float]:
        """What the losses are of, for the record."""
        return {"frames": self.frames}

    def rates(self) -> dict[str, float]:
        """Losses per encoder frame, by name; auxiliary ones only where there are any."""
        sums = {
            "loss": self.loss,
            "simple_loss": self.simple_loss,
            "pruned_loss": self.pruned_loss,
        }
        auxiliary = {"ctc_loss": self.ctc_loss, "frame_loss": self.frame_loss}
        sums |= {name: value for name, value in auxiliary.items() if value}
        frames = max(self.frames, 1.0)
        return {name: value / frames for name, value in sums.items()}

    def shape(self) -> dict[str, float]:
        """Mean length in feature frames and mean share of padding, by the original's names."""
        utterances = max(self.utterances, 1.0)
        return {
            "utt_duration": self.feature_frames / utterances,
            "utt_pad_proportion": self.padding / utterances,
        }


def format_totals(totals: LossTotals) -> str:
    """`loss=0.1234, …, over 5000.00 frames. utt_duration=…, over 40.00 utterances. `.

    The form is that of the original's log.
    """
    losses = ", ".join(f"{name}={value:.4g}" for name, value in totals.rates().items())
    shape = totals.shape()
    return (
        f"{losses}, over {totals.frames:.2f} frames. "
        f"utt_duration={shape['utt_duration']:.4g} frames, "
        f"utt_pad_proportion={shape['utt_pad_proportion']:.4g}, "
        f"over {totals.utterances:.2f} utterances. "
    )
