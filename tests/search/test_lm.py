"""Language models of searches: batches, n-grams that are not listed, sums of models."""

import numpy as np
import pytest

from snowmelt.search.lm import NgramScorer, WeightedLms, sentence_scores
from snowmelt.text.ngram import NgramLm
from tests.search.fake_lms import BACKOFF_ID, HistoryLm, all_tokens, bigram, toy_neural_lm

_V = 5  # token 4 is in no n-gram


@pytest.mark.parametrize("rule", ["arpa", "all_paths"])
def test_an_ngram_model_scores_token_by_token_as_it_does_itself(rule):
    ngram = NgramLm(bigram(), BACKOFF_ID, rule)
    lm = NgramScorer(ngram, _V)
    for tokens in all_tokens(4, 3):
        state, expected = ngram.start, []
        for token in tokens:
            score, state = ngram.step(state, token)
            expected.append(score)
        states, found = [lm.start()], []
        for token in tokens:
            found.append(lm.scores(states)[0, token])
            states = lm.advance(states, np.array([token]))
        assert found == pytest.approx(expected, abs=1e-6)


def test_the_two_rules_differ_where_backing_off_pays():
    # After 1, token 3 is listed with -4; by backing off it has -0.3 - 2.5.
    for rule, expected in (("arpa", -4.0), ("all_paths", -2.8)):
        lm = NgramScorer(NgramLm(bigram(), BACKOFF_ID, rule), _V)
        (state,) = lm.advance([lm.start()], np.array([1]))
        assert lm.scores([state])[0, 3] == pytest.approx(expected)


def test_an_unlisted_token_is_improbable_and_forgets_what_was_before():
    ngram = NgramLm(bigram(), BACKOFF_ID, "arpa")
    lm = NgramScorer(ngram, _V)
    assert lm.scores([lm.start()])[0, [0, 4]].tolist() == [-2.5, -2.5]
    assert lm.advance([lm.start()], np.array([4])) == [ngram.empty_history]
    known_end, unknown_end = lm.advance([lm.start()] * 2, np.array([2, 4]))
    assert lm.final_scores([known_end, unknown_end]).tolist() == pytest.approx([-0.4, -1.0])


def test_an_end_that_is_not_listed_is_improbable():
    grammar = bigram()
    grammar.final_scores[:] = -np.inf
    lm = NgramScorer(NgramLm(grammar, BACKOFF_ID, "arpa"), _V)
    assert lm.final_scores([lm.start()]).tolist() == [-2.5]


def test_a_model_of_other_ids_is_refused():
    with pytest.raises(ValueError, match="lists no token id below 1"):
        NgramScorer(NgramLm(bigram(), BACKOFF_ID, "arpa"), 1)


def test_scores_may_be_changed_by_the_caller():
    lm = NgramScorer(NgramLm(bigram(), BACKOFF_ID, "arpa"), _V)
    scores = lm.scores([lm.start()])
    before = scores.copy()
    scores[:] = 0.0
    assert (lm.scores([lm.start()]) == before).all()


def test_a_sum_of_models_is_the_sum():
    first, second = toy_neural_lm(), HistoryLm(6)
    lm = WeightedLms(((first, 0.5), (second, -0.25)))
    states = lm.advance([lm.start(), lm.start()], np.array([3, 2]))
    assert states == [(3, (3,)), (2, (2,))]
    expected = 0.5 * first.scores([3, 2]) - 0.25 * second.scores([(3,), (2,)])
    assert lm.scores(states) == pytest.approx(expected)
    ends = 0.5 * first.final_scores([3, 2]) - 0.25 * second.final_scores([(3,), (2,)])
    assert lm.final_scores(states) == pytest.approx(ends)
    with pytest.raises(ValueError, match=r"one vocabulary size are needed, got \[5, 6\]"):
        WeightedLms(((first, 1.0), (HistoryLm(5), 1.0)))


def test_sentences_of_any_company_get_the_product_of_their_tokens_and_the_end():
    lm = HistoryLm(4, dtype=np.float64)
    sentences = [(1, 2, 3), (), (2,), (1, 2, 3, 3, 1)]
    expected = []
    for tokens in sentences:
        total = 0.0
        for place, token in enumerate(tokens):
            total += lm.scores([tokens[:place]])[0, token]
        expected.append(total + lm.final_scores([tokens])[0])
    assert sentence_scores(lm, sentences) == pytest.approx(expected, abs=1e-12)
    assert sentence_scores(lm, []).shape == (0,)
