"""Hypotheses rescored by a language model: the original's results, and sums done by hand."""

import numpy as np
import pytest

from snowmelt.search.lm import sentence_scores
from snowmelt.search.method import search_whole
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.search.rescoring import RescoringSearch, ranking
from tests.search.fake_lms import HistoryLm, toy_neural_lm
from tests.search.fakes import RandomScorer, ToyScorer, frames_batch, toy_batch


# Computed with the original beam_search.py on the same toy models.
@pytest.mark.parametrize(
    ("scale", "first", "second"),
    [(0.1, "13215145", "4415"), (0.5, "134422", "4415"), (2.0, "134422", "4415")],
)
def test_tokens_are_the_originals(scale, first, second):
    for compat in (False, True):
        search = RescoringSearch(
            ModifiedBeamSearch(4, icefall_compat=compat), toy_neural_lm(), scale
        )
        results = search_whole(search, ToyScorer(), *toy_batch())
        assert ["".join(map(str, result.tokens)) for result in results] == [first, second]


def _searched(search, scorer, num_frames=12):
    return search.step(scorer, *frames_batch(num_frames), [search.init_state(scorer)])[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_highest_sum_wins_whatever_its_length(seed):
    scorer, lm, lodr = RandomScorer(seed=seed), HistoryLm(4, 1), HistoryLm(4, 2)
    first_pass = ModifiedBeamSearch(6)
    search = RescoringSearch(first_pass, lm, 0.8, lodr, -0.3)
    state = _searched(search, scorer)
    hypotheses = first_pass.n_best(scorer, state, is_final=True)
    assert len(hypotheses) == 6
    sums = {
        h.tokens: h.log_prob
        + 0.8 * sentence_scores(lm, [h.tokens])[0]
        - 0.3 * sentence_scores(lodr, [h.tokens])[0]
        for h in hypotheses
    }
    result = search.result(scorer, state, is_final=True)
    assert result.tokens == max(sums, key=lambda tokens: sums[tokens])
    assert result.log_prob == pytest.approx(max(sums.values()), abs=1e-5)
    by_tokens = {h.tokens: h for h in hypotheses}
    assert result.timestamps == by_tokens[result.tokens].timestamps


def test_the_hypotheses_come_by_their_sums():
    scorer, lm = RandomScorer(seed=1), HistoryLm(4, 1)
    search = RescoringSearch(ModifiedBeamSearch(6), lm, 0.8)
    state = _searched(search, scorer)
    found = search.n_best(scorer, state, is_final=True)
    sums = [hypothesis.log_prob for hypothesis in found]
    assert len(found) == 6 and sums == sorted(sums, reverse=True)
    assert found[0] == search.result(scorer, state, is_final=True)
    before_the_end = search.n_best(scorer, state, is_final=False)
    assert before_the_end == search.search.n_best(scorer, state, is_final=False)


def test_nothing_is_rescored_before_the_end():
    scorer, first_pass = RandomScorer(), ModifiedBeamSearch(6)
    search = RescoringSearch(first_pass, HistoryLm(4), 5.0)
    state = _searched(search, scorer)
    partial = search.result(scorer, state, is_final=False)
    assert partial == first_pass.result(scorer, state, is_final=False)
    assert partial.tokens != search.result(scorer, state, is_final=True).tokens


def test_a_scale_of_zero_is_the_most_probable_hypothesis():
    scorer, first_pass = RandomScorer(), ModifiedBeamSearch(6)
    search = RescoringSearch(first_pass, HistoryLm(4), 0.0)
    state = _searched(search, scorer)
    hypotheses = first_pass.n_best(scorer, state, is_final=True)
    best = max(hypotheses, key=lambda h: h.log_prob)
    result = search.result(scorer, state, is_final=True)
    assert (result.tokens, result.log_prob) == (best.tokens, best.log_prob)


def test_all_scales_of_the_original_have_a_key():
    scorer, lm, lodr = RandomScorer(seed=2), HistoryLm(4, 1), HistoryLm(4, 2)
    first_pass = ModifiedBeamSearch(6)
    plain = RescoringSearch(first_pass, lm, 0.25)
    state = _searched(plain, scorer)
    results = plain.results_by_scale(scorer, state)
    assert len(results) == 40
    assert next(iter(results)) == "nnlm_scale_0.10" and list(results)[-1] == "nnlm_scale_0.49"
    assert results["nnlm_scale_0.25"] == plain.result(scorer, state, is_final=True)
    # log_prob / a + LM - b * n-gram is the same choice as log_prob + a * LM - a b * n-gram.
    search = RescoringSearch(first_pass, lm, 0.5, lodr, -0.5 * 0.4)
    results = search.results_by_scale(scorer, state)
    assert len(results) == 28 * 19
    assert next(iter(results)) == "nnlm_scale_0.04_lodr_scale_0.05"
    assert list(results)[-1] == "nnlm_scale_0.58_lodr_scale_0.95"
    expected = search.result(scorer, state, is_final=True)
    assert results["nnlm_scale_0.50_lodr_scale_0.40"].tokens == expected.tokens
    assert len({result.tokens for result in results.values()}) > 1


def test_streams_go_on_with_the_first_passes_best():
    scorer, first_pass = RandomScorer(), ModifiedBeamSearch(6)
    search = RescoringSearch(first_pass, HistoryLm(4), 5.0)
    state = _searched(search, scorer)
    cleared = search.clear_result(scorer, state, keep_history=True)
    expected = first_pass.clear_result(scorer, state, keep_history=True)
    assert cleared.codes.tolist() == expected.codes.tolist()
    assert search.result(scorer, cleared, is_final=True).tokens == ()
    assert search_whole(search, scorer, np.zeros((1, 0, 1), np.float32), np.array([0]))


def test_the_parts_of_a_score_rank_at_any_scale():
    scorer, lm, lodr = RandomScorer(seed=2), HistoryLm(4, 1), HistoryLm(4, 2)
    search = RescoringSearch(ModifiedBeamSearch(6), lm, 0.1, lodr, -0.05)
    state = _searched(search, scorer)
    found = search.n_best(scorer, state, is_final=True)
    for weights in ((1.0, 2.0, -0.7), (1.0, 0.0, 0.0), (1.0, 0.5, -2.0)):
        order, totals = ranking([hypothesis.score_parts for hypothesis in found], weights)
        other = RescoringSearch(search.search, lm, weights[1], lodr, weights[2])
        expected = other.n_best(scorer, state, is_final=True)
        assert [found[i].tokens for i in order] == [h.tokens for h in expected]
        assert [totals[i] for i in order] == [h.log_prob for h in expected]
        assert [found[i].score_parts for i in order] == [h.score_parts for h in expected]
