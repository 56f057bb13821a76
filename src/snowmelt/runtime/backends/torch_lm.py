"""How does a neural language model serve in a search? As a `search.lm.LanguageModel`, in batches.

Invariant: the model runs in evaluation mode without gradients, once for each new token, all
hypotheses of all streams together; arrays go in and come out, on the CPU.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from snowmelt.models.lm.model import TokenLm
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["TorchLm", "TorchLmState"]


class TorchLmState(NamedTuple):
    """One hypothesis: the model's state after its tokens, and (V,) the scores of the next one."""

    memory: Any
    scores: FloatArray


class TorchLm:
    """A language model in torch; see `search.lm.LanguageModel`.

    Args:
        model: weights loaded; put into evaluation mode and on `device`.
        sos_eos_id: the token that a sentence begins and ends with.
        device: where it runs.
    """

    def __init__(
        self, model: TokenLm, *, sos_eos_id: int, device: torch.device | str = "cpu"
    ) -> None:
        self._model = model.eval().to(device)
        self._device = torch.device(device)
        self._sos_eos_id = sos_eos_id
        (self._start,) = self._after(model.init_state(1), np.array([sos_eos_id]))

    @property
    def vocab_size(self) -> int:
        """See `LanguageModel`."""
        return self._model.vocab_size

    def start(self) -> TorchLmState:
        """See `LanguageModel`."""
        return self._start

    def advance(self, states: Sequence[TorchLmState], token_ids: IntArray) -> list[TorchLmState]:
        """See `LanguageModel`."""
        if not states:
            return []
        return self._after(self._model.stack([state.memory for state in states]), token_ids)

    def scores(self, states: Sequence[TorchLmState]) -> FloatArray:
        """See `LanguageModel`."""
        return np.stack([state.scores for state in states])

    def final_scores(self, states: Sequence[TorchLmState]) -> FloatArray:
        """See `LanguageModel`."""
        return np.array([state.scores[self._sos_eos_id] for state in states])

    def _after(self, memory: Any, token_ids: IntArray) -> list[TorchLmState]:
        """The hypotheses of a batched memory after one more token each."""
        with torch.inference_mode():
            tokens = torch.from_numpy(token_ids)[:, None].to(self._device)
            log_probs, memory = self._model.score(tokens, memory)
            memories = self._model.unstack(memory)
        rows: FloatArray = log_probs[:, 0].cpu().numpy()
        return [
            TorchLmState(memory, row.copy()) for memory, row in zip(memories, rows, strict=True)
        ]
