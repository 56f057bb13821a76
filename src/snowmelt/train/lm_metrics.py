"""How is the training of a language model going? Sums over tokens, and their log lines.

Invariant: plain floats; see `train.metrics`.
"""

import math
from dataclasses import astuple, dataclass

__all__ = ["LmTotals"]

# exp of more is no number.
_MAX_EXPONENT = 700.0


@dataclass(frozen=True)
class LmTotals:
    """A loss in nats summed over tokens, and what it covers.

    Attributes:
        loss: sum of -log P(token).
        tokens: how many, ends of sentences included.
        words: how many words these are, ends of sentences included.
        sentences: sentences, or pieces of long ones.
        padding: places of the batches without a token.
    """

    loss: float = 0.0
    tokens: float = 0.0
    words: float = 0.0
    sentences: float = 0.0
    padding: float = 0.0

    def __add__(self, other: "LmTotals") -> "LmTotals":
        return LmTotals(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def decayed(self, reset_interval: int) -> "LmTotals":
        """The totals with each batch's weight lowered by 1/reset_interval."""
        return LmTotals(*(v * (1.0 - 1.0 / reset_interval) for v in astuple(self)))

    def values(self) -> tuple[float, ...]:
        """The sums, in the order of the constructor."""
        return astuple(self)

    def covered(self) -> dict[str, float]:
        """See `train.history.Totals`."""
        return {"tokens": self.tokens}

    def rates(self) -> dict[str, float]:
        """Loss per token, and perplexities per token and per word."""
        loss = self.loss / max(self.tokens, 1.0)
        return {"loss": loss, "ppl": _exp(loss), "word_ppl": _exp(self.loss / max(self.words, 1.0))}

    def shape(self) -> dict[str, float]:
        """Mean length of a sentence, and share of the batches that is padding."""
        places = max(self.tokens + self.padding, 1.0)
        return {
            "tokens_per_sentence": self.tokens / max(self.sentences, 1.0),
            "pad_proportion": self.padding / places,
        }

    def __str__(self) -> str:
        rates = ", ".join(f"{name}={value:.4g}" for name, value in self.rates().items())
        return f"{rates}, over {self.tokens:.0f} tokens"


def _exp(x: float) -> float:
    return math.exp(min(x, _MAX_EXPONENT))
