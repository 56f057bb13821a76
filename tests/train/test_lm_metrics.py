"""Perplexities are those of the sums."""

import math

import pytest

from snowmelt.train.lm_metrics import LmTotals


def test_rates_are_of_tokens_and_words() -> None:
    totals = LmTotals(2.0, 4.0, 2.0, 1.0, 1.0) + LmTotals(4.0, 8.0, 2.0, 1.0, 2.0)
    assert totals.rates() == pytest.approx(
        {"loss": 0.5, "ppl": math.exp(0.5), "word_ppl": math.exp(1.5)}
    )
    assert totals.shape() == pytest.approx({"tokens_per_sentence": 6.0, "pad_proportion": 0.2})
    assert totals.covered() == {"tokens": 12.0}
    assert str(totals) == "loss=0.5, ppl=1.649, word_ppl=4.482, over 12 tokens"
    assert totals.decayed(4).tokens == 9.0


def test_nothing_and_too_much_have_rates() -> None:
    assert LmTotals().rates()["ppl"] == 1.0
    assert math.isfinite(LmTotals(loss=1e6, tokens=1.0, words=1.0).rates()["ppl"])
