"""What does a search need from a model? The prediction network and the joiner, on arrays.

Every runtime (torch, ONNX) supplies one `Scorer`; every search is written against it.

Invariant: a scorer has no state of its own that a result could depend on: the same arguments give
the same values, whatever was asked before and whatever else is in the batch.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "IntArray", "Scorer", "initial_context"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Scorer(Protocol):
    """Prediction network and joiner of a transducer, both with their projections applied."""

    @property
    def context_size(self) -> int:
        """Number of tokens the prediction network sees."""

    @property
    def blank_id(self) -> int:
        """Id of the blank."""

    @property
    def unk_id(self) -> int | None:
        """Id that is treated like blank: it is never emitted; None if there is no such id."""

    def decode(self, contexts: IntArray) -> FloatArray:
        """Projected prediction network output.

        Args:
            contexts: (M, context_size) int64, oldest token first; a negative id stands for "no
                token yet", its embedding is zero.

        Returns:
            (M, J) float32, J = joiner dimension.
        """

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        """Unnormalised scores of the next token.

        Args:
            encoder_proj: (M, J) float32, projected encoder frames.
            decoder_proj: (M, J) float32, from `decode`.

        Returns:
            (M, V) float32 logits.
        """


def initial_context(scorer: Scorer) -> tuple[int, ...]:
    """The history every search starts from: what training saw, no token and then blank.

    Source: icefall's batched searches; its other programs start from blanks only, an input the
    model never saw.
    """
    return (-1,) * (scorer.context_size - 1) + (scorer.blank_id,)
