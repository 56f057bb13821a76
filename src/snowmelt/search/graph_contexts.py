"""What does the prediction network say after these tokens? Contexts as numbers, each asked once.

A context, the last C tokens, is one integer, so that it can be compared and looked up. The order of
the integers is the order of the token tuples, "no token" first.

Invariant: codes and tokens determine one another; a table holds what `Scorer.decode` gave.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from snowmelt.search.scorer import FloatArray, IntArray, Scorer

__all__ = ["DecoderTable", "bits_per_token", "context_code", "context_tokens"]

_BITS: Final = 62  # of an int64, sign left alone


def bits_per_token(context_size: int) -> int:
    """Bits of a context's integer that one token has."""
    return _BITS // context_size


def context_code(tokens: Sequence[int]) -> int:
    """The integer of a context, oldest token first; -1 is "no token".

    Example:
        >>> context_code((-1, 0)), context_code((0, 0)) > context_code((-1, 5))
        (1, True)
    """
    code = 0
    for token in tokens:
        code = (code << bits_per_token(len(tokens))) + token + 1
    return code


def context_tokens(codes: IntArray, context_size: int) -> IntArray:
    """(M, context_size) tokens of (M,) codes."""
    bits = bits_per_token(context_size)
    shifts = bits * np.arange(context_size - 1, -1, -1)
    tokens: IntArray = ((codes[:, None] >> shifts) & ((1 << bits) - 1)) - 1
    return tokens


class DecoderTable:
    """Prediction network outputs of the contexts met in one step, each computed once.

    Args:
        scorer: the scorer that is searched with.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._row_of: dict[int, int] = {}
        self._rows: FloatArray | None = None

    def rows(self, codes: IntArray) -> IntArray:
        """(M,) rows of the table for (M,) contexts; what is missing is computed, in one call."""
        wanted = codes.tolist()
        missing = list(dict.fromkeys(code for code in wanted if code not in self._row_of))
        if missing:
            tokens = context_tokens(np.array(missing, dtype=np.int64), self._scorer.context_size)
            self.add(missing, self._scorer.decode(tokens))
        return np.array([self._row_of[code] for code in wanted], dtype=np.int64)

    def decoder_proj(self, rows: IntArray) -> FloatArray:
        """(M, J) outputs, a copy."""
        assert self._rows is not None
        return self._rows[rows]

    def add(self, codes: Sequence[int], decoder_proj: FloatArray) -> None:
        """Outputs (M, J) of M contexts are known already."""
        for code in codes:
            self._row_of.setdefault(code, len(self._row_of))
        if self._rows is None or len(self._rows) < len(self._row_of):
            grown = np.empty((2 * len(self._row_of), decoder_proj.shape[1]), dtype=np.float32)
            if self._rows is not None:
                grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[[self._row_of[code] for code in codes]] = decoder_proj
