"""Which hypothesis of modified beam search is the best, once a language model has read it whole?

The search runs without the model. At the end every hypothesis of the beam gets
log_prob + lm_scale * LM(tokens) + lodr_scale * n-gram(tokens), sentence ends included; the highest
sum wins, whatever its length.

Invariant: a result before the end is the first pass's: nothing is rescored that may still grow.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py,
modified_beam_search_lm_rescore and modified_beam_search_lm_rescore_LODR.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from snowmelt.search.lm import LanguageModel, sentence_scores
from snowmelt.search.method import ScoreParts, SearchResult
from snowmelt.search.modified_beam import BeamState, ModifiedBeamSearch
from snowmelt.search.scorer import Scorer
from snowmelt.search.second_pass import SecondPass

__all__ = ["RescoringSearch", "ranking"]

# The original's: all are tried.
_LM_SCALES: Final = tuple(i / 100 for i in range(10, 50))
_LM_SCALES_WITH_LODR: Final = tuple(i / 100 for i in range(4, 60, 2))
_LODR_SCALES: Final = tuple(i / 100 for i in range(5, 100, 5))


@dataclass(frozen=True)
class RescoringSearch(SecondPass[ModifiedBeamSearch, BeamState]):
    """See `search.method.SearchMethod`.

    Attributes:
        search: the first pass.
        lm: reads whole hypotheses.
        lm_scale: what its scores are multiplied by, for `result`.
        lodr_lm: an n-gram model that is taken away; None for none.
        lodr_scale: what its scores are multiplied by, for `result`; below 0.
    """

    lm: LanguageModel[Any]
    lm_scale: float
    lodr_lm: LanguageModel[Any] | None = None
    lodr_scale: float = 0.0

    def n_best(self, scorer: Scorer, state: BeamState, *, is_final: bool) -> list[SearchResult]:
        """All hypotheses, the best first; arguments as `SearchMethod.result`."""
        if not is_final:
            return self.search.n_best(scorer, state, is_final=False)
        first = _FirstPass(self, scorer, state)
        return first.ranked((1.0, self.lm_scale, self.lodr_scale))

    def results_by_scale(self, scorer: Scorer, state: BeamState) -> dict[str, SearchResult]:
        """Final results for all scales that the original tries.

        Returns:
            by the original's key: `nnlm_scale_0.10`, or with `lodr_lm`
            `nnlm_scale_0.10_lodr_scale_0.05`: log_prob / nnlm_scale + LM - lodr_scale * n-gram.
        """
        first = _FirstPass(self, scorer, state)
        if self.lodr_lm is None:
            return {f"nnlm_scale_{a:.2f}": first.ranked((1.0, a, 0.0))[0] for a in _LM_SCALES}
        return {
            f"nnlm_scale_{a:.2f}_lodr_scale_{b:.2f}": first.ranked((1.0 / a, 1.0, -b))[0]
            for a in _LM_SCALES_WITH_LODR
            for b in _LODR_SCALES
        }


class _FirstPass:
    """The hypotheses of a stream, and what the models say of each."""

    def __init__(self, method: RescoringSearch, scorer: Scorer, state: BeamState) -> None:
        self._hypotheses = method.search.n_best(scorer, state, is_final=True)
        sentences = [hypothesis.tokens for hypothesis in self._hypotheses]
        log_probs = [hypothesis.log_prob for hypothesis in self._hypotheses]
        lm_scores = sentence_scores(method.lm, sentences).tolist()
        lodr_scores = [0.0] * len(sentences)
        if method.lodr_lm is not None:
            lodr_scores = sentence_scores(method.lodr_lm, sentences).tolist()
        self._parts = list(zip(log_probs, lm_scores, lodr_scores, strict=True))

    def ranked(self, weights: ScoreParts) -> list[SearchResult]:
        """The hypotheses by their weighted sums, the highest first, ties in their order."""
        order, totals = ranking(self._parts, weights)
        return [
            dataclasses.replace(self._hypotheses[i], log_prob=totals[i], score_parts=self._parts[i])
            for i in order
        ]


def ranking(parts: Sequence[ScoreParts], weights: ScoreParts) -> tuple[list[int], list[float]]:
    """The order of some hypotheses, and their weighted sums.

    Args:
        parts: of M hypotheses.
        weights: what each part is multiplied by.

    Returns:
        their numbers, the highest sum first, ties in their order; and the M sums.
    """
    totals = np.array(parts) @ np.array(weights)
    return np.argsort(-totals, kind="stable").tolist(), totals.tolist()
