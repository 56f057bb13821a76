"""Does the model score token by token what the two rules say?"""

import itertools
import math

import numpy as np
import pytest

from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.kneser_ney import estimate_kneser_ney
from snowmelt.text.ngram import BackoffRule, NgramLm, score_sentence
from snowmelt.text.symbols import word_table
from tests.text.small_language import SlowNgrams, random_sentences, word_model

NAMES = ["A", "AT", "TEA", "TO", "<UNK>"]
WORDS = word_table(["A", "AT", "ATE", "TEA", "TEAT", "TO", "TOO", "TWO", "<UNK>", "NEVER"])


def models(seed: int, order: int, rule: BackoffRule) -> tuple[NgramLm, SlowNgrams]:
    model = word_model(seed, order)
    return NgramLm(grammar_from_arpa(model, WORDS), WORDS["#0"], rule), SlowNgrams(model)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("rule", ["arpa", "all_paths"])
def test_sentences_against_dictionaries(order: int, rule: BackoffRule) -> None:
    lm, slow = models(5, order, rule)
    reference = slow.by_arpa_rule if rule == "arpa" else slow.best_path
    sentences = [[], *itertools.product(NAMES, repeat=2), *itertools.product(NAMES[:3], repeat=4)]
    for sentence in sentences:
        score = score_sentence(lm, WORDS, sentence)
        assert score.log_prob == pytest.approx(reference(sentence), abs=1e-4), sentence
        assert (score.num_scored, score.num_unknown) == (len(sentence) + 1, 0)


def test_all_paths_is_never_below_the_arpa_rule() -> None:
    # A backoff model can be better where it backs off from what it lists.
    model = estimate_kneser_ney(random_sentences(1), 3)
    grammar = grammar_from_arpa(model, WORDS)
    arpa, all_paths = (NgramLm(grammar, WORDS["#0"], rule) for rule in ("arpa", "all_paths"))
    differences = [
        score_sentence(all_paths, WORDS, s).log_prob - score_sentence(arpa, WORDS, s).log_prob
        for s in itertools.product(NAMES[:4], repeat=3)
    ]
    assert min(differences) > -1e-9
    assert max(differences) > 0.1


@pytest.mark.parametrize("rule", ["arpa", "all_paths"])
def test_rows_are_the_steps(rule: BackoffRule) -> None:
    lm, _ = models(6, 3, rule)
    states = [lm.start]
    for word in ("A", "AT", "A", "TO"):
        states.append(lm.step(states[-1], WORDS[word])[1])
    for state in [*states, lm.empty_history, ()]:
        row = lm.next_scores(state, len(WORDS))
        steps = [lm.step(state, label)[0] for label in range(len(WORDS)) if label != WORDS["#0"]]
        np.testing.assert_allclose(np.delete(row, WORDS["#0"]), steps, atol=1e-5)
        assert row[WORDS["#0"]] == -np.inf
        assert lm.next_scores(state, len(WORDS)) is row
        with pytest.raises(ValueError, match="read-only"):
            row[0] = 0.0


def test_the_arpa_rule_is_a_distribution() -> None:
    lm, _ = models(7, 3, "arpa")
    state = lm.start
    for word in ("A", "A", "TEA"):
        total = np.exp(lm.next_scores(state, len(WORDS)).astype(np.float64)).sum()
        assert total + math.exp(lm.final_score(state)) == pytest.approx(1.0, abs=1e-5)
        _, state = lm.step(state, WORDS[word])


@pytest.mark.parametrize("rule", ["arpa", "all_paths"])
def test_unknown_words(rule: BackoffRule) -> None:
    lm, _ = models(8, 2, rule)
    assert lm.step(lm.start, WORDS["NEVER"]) == (-math.inf, ())
    assert lm.step((), WORDS["A"]) == (-math.inf, ())
    assert lm.final_score(()) == -math.inf
    score = score_sentence(lm, WORDS, ["A", "NEVER", "ELSEWHERE", "AT"])
    assert (score.num_scored, score.num_unknown) == (3, 2)
    known = lm.step(lm.start, WORDS["A"])[0]
    after, state = lm.step(lm.empty_history, WORDS["AT"])
    assert score.log_prob == pytest.approx(known + after + lm.final_score(state))


def test_equal_histories_are_equal_states() -> None:
    lm, _ = models(9, 2, "arpa")
    states = []
    for words in (["A", "TO"], ["TEA", "AT", "TO"]):
        state = lm.start
        for word in words:
            _, state = lm.step(state, WORDS[word])
        states.append(state)
    assert states[0] == states[1] != lm.start
