"""Hypotheses at other scales: the order, the scores and the confidences follow."""

from dataclasses import replace

import numpy as np
import pytest

from snowmelt.evaluate.rescored import rescored
from snowmelt.evaluate.utterances import Hypothesis, Utterance
from snowmelt.runtime.recognizer import RecognitionResult, shares

_PARTS = {"A": (-1.0, -9.0, -2.0), "B": (-2.0, -3.0, -8.0), "C": (-4.0, -1.0, -1.0)}


def _row() -> Hypothesis:
    utterance = Utterance("u", ["A"], 1.0, lambda: (16000, np.zeros(1, np.float32)))
    plain = RecognitionResult("", (), (), (), (), (), 0.0, True, "", 0.0, 0.5)
    nbest = [replace(plain, text=text, score_parts=parts) for text, parts in _PARTS.items()]
    return Hypothesis(utterance, tuple(nbest))


@pytest.mark.parametrize(
    ("scales", "order"),
    [((0.0, 0.0), "ABC"), ((0.5, 0.0), "BCA"), ((2.0, 0.0), "CBA"), ((0.5, -0.5), "BCA")],
)
def test_the_order_follows_from_the_scales(scales: tuple[float, float], order: str) -> None:
    (row,) = rescored([_row()], lm_scale=scales[0], ngram_lm_scale=scales[1], num_nbest=3)
    assert "".join(result.text for result in row.nbest) == order
    sums = [
        am + scales[0] * lm + scales[1] * ngram for am, lm, ngram in map(_PARTS.__getitem__, order)
    ]
    assert [result.log_prob for result in row.nbest] == pytest.approx(sums)
    assert [result.confidence for result in row.nbest] == pytest.approx(shares(sums))


def test_as_many_are_kept_as_are_asked_for() -> None:
    (row,) = rescored([_row()], lm_scale=0.0, ngram_lm_scale=0.0, num_nbest=2)
    assert [result.text for result in row.nbest] == ["A", "B"]
    single = Hypothesis(_row().utterance, _row().nbest[:1])
    (row,) = rescored([single], lm_scale=1.0, ngram_lm_scale=0.0, num_nbest=2)
    assert row.nbest[0].confidence == 0.5 and row.nbest[0].log_prob == -10.0
