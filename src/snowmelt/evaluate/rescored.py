"""Which hypothesis is the best at other scales of the language models? One decoding serves all.

Invariant: the same choice as that of a search with these scales; nothing is recognised again.
"""

from collections.abc import Sequence
from dataclasses import replace

from snowmelt.evaluate.utterances import Hypothesis
from snowmelt.runtime.recognizer import shares
from snowmelt.search.rescoring import ranking

__all__ = ["rescored"]


def rescored(
    rows: Sequence[Hypothesis], *, lm_scale: float, ngram_lm_scale: float, num_nbest: int
) -> list[Hypothesis]:
    """Rank the hypotheses anew.

    Args:
        rows: with all hypotheses of a rescoring method, in any order.
        lm_scale: of the language model.
        ngram_lm_scale: of the n-gram, below 0; not looked at where there is none.
        num_nbest: most hypotheses of an utterance that are kept.
    """
    found = []
    for row in rows:
        parts = [result.score_parts for result in row.nbest if result.score_parts is not None]
        assert len(parts) == len(row.nbest), "these hypotheses were not rescored"
        order, totals = ranking(parts, (1.0, lm_scale, ngram_lm_scale))
        results = [replace(row.nbest[i], log_prob=totals[i]) for i in order]
        if len(results) > 1:
            confidences = shares([result.log_prob for result in results])
            results = [
                replace(result, confidence=share)
                for result, share in zip(results, confidences, strict=True)
            ]
        found.append(Hypothesis(row.utterance, tuple(results[:num_nbest])))
    return found
