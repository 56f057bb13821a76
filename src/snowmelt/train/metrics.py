"""How is a run going? Sums of losses over frames, decayed over batches, and their log lines.

Invariant: plain floats; formatting follows the original's log so that its tools can read ours.
"""

from dataclasses import dataclass

__all__ = ["LossTotals", "format_totals"]


@dataclass(frozen=True)
class LossTotals:
    """Losses in nats summed over utterances, and the encoder frames and utterances they cover."""

    loss: float = 0.0
    simple_loss: float = 0.0
    pruned_loss: float = 0.0
    ctc_loss: float = 0.0
    frame_loss: float = 0.0
    frames: float = 0.0
    utterances: float = 0.0

    def __add__(self, other: "LossTotals") -> "LossTotals":
        return LossTotals(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def decayed(self, reset_interval: int) -> "LossTotals":
        """The totals with each batch's weight lowered by 1/reset_interval."""
        return LossTotals(*(v * (1.0 - 1.0 / reset_interval) for v in self.values()))

    def values(self) -> tuple[float, ...]:
        """The sums, in the order of the constructor."""
        return (
            self.loss,
            self.simple_loss,
            self.pruned_loss,
            self.ctc_loss,
            self.frame_loss,
            self.frames,
            self.utterances,
        )

    def per_frame(self) -> dict[str, float]:
        """Losses per encoder frame, by name; auxiliary ones only where there are any."""
        frames = max(self.frames, 1.0)
        named = {
            "loss": self.loss / frames,
            "simple_loss": self.simple_loss / frames,
            "pruned_loss": self.pruned_loss / frames,
        }
        if self.ctc_loss:
            named["ctc_loss"] = self.ctc_loss / frames
        if self.frame_loss:
            named["frame_loss"] = self.frame_loss / frames
        return named


def format_totals(totals: LossTotals) -> str:
    """`loss=0.1234, simple_loss=…, pruned_loss=…, over 5000.00 frames. ` as the original logs."""
    losses = ", ".join(f"{name}={value:.4g}" for name, value in totals.per_frame().items())
    return f"{losses}, over {totals.frames:.2f} frames. "
