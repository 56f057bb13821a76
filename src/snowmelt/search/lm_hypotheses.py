"""What does the language model say about each hypothesis of a beam, frame by frame?

Invariant: one row a hypothesis; the model is asked once for every new token, in one call for all
streams, and never for a blank.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from snowmelt.search.lm import LanguageModel
from snowmelt.search.prefix_tree import Ints
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["LmRows", "join_rows", "next_rows", "start_rows", "take_rows"]


class LmRows(NamedTuple):
    """M hypotheses, as the language model sees them.

    Attributes:
        states: M states of the model.
        scores: (M, V) of the next token; 0 for what is not emitted (blank, <unk>).
        totals: (M,) sums of the scores of the tokens so far.
    """

    states: tuple[Any, ...]
    scores: FloatArray
    totals: FloatArray


def start_rows(lm: LanguageModel[Any], skipped: IntArray) -> LmRows:
    """The one hypothesis of a stream that has heard nothing."""
    states = (lm.start(),)
    scores = _scores(lm, states, skipped)
    return LmRows(states, scores, np.zeros(1, scores.dtype))


def take_rows(rows: LmRows, places: IntArray) -> LmRows:
    """Some of the hypotheses, copied."""
    return LmRows(
        tuple(rows.states[i] for i in places.tolist()), rows.scores[places], rows.totals[places]
    )


def join_rows(parts: Sequence[LmRows]) -> LmRows:
    """The hypotheses of several streams, one after the other."""
    return LmRows(
        tuple(state for part in parts for state in part.states),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.totals for part in parts]),
    )


def next_rows(
    lm: LanguageModel[Any],
    rows: LmRows,
    origins: IntArray,
    token_ids: Ints,
    skipped: IntArray,
) -> LmRows:
    """The hypotheses after a frame.

    Args:
        lm: the model.
        rows: the hypotheses before it.
        origins: (M,) row that each new hypothesis comes from: i if it got no token, -1 - i if it
            got one.
        token_ids: (M,) the token it got; elsewhere not looked at.
        skipped: ids that are not emitted.
    """
    is_new = origins < 0
    sources = np.where(is_new, -1 - origins, origins)
    after = take_rows(rows, sources)
    places = np.flatnonzero(is_new)
    if not len(places):
        return after
    tokens = token_ids[places].astype(np.int64)
    after.totals[places] += rows.scores[sources[places], tokens]
    advanced = lm.advance([after.states[i] for i in places.tolist()], tokens)
    after.scores[places] = _scores(lm, advanced, skipped)
    states = list(after.states)
    for place, state in zip(places.tolist(), advanced, strict=True):
        states[place] = state
    return after._replace(states=tuple(states))


def _scores(lm: LanguageModel[Any], states: Sequence[Any], skipped: IntArray) -> FloatArray:
    scores = lm.scores(states)
    scores[:, skipped] = 0.0
    return scores
