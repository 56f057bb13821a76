"""Does the graph accept exactly what lexicon and grammar accept, with their best scores?"""

import itertools
import math
import random

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.graph import DecodingGraph
from snowmelt.text.lexicon_fst import lexicon_to_transducer
from snowmelt.text.lg import compile_lg, remove_epsilons
from snowmelt.text.transducer import Transducer, transducer_from_arcs
from tests.text.paths import active_states, best_path
from tests.text.small_language import (
    LEXICON,
    TOKENS,
    WORDS,
    SlowNgrams,
    lexicon_transducer,
    segmentations,
    table_of,
    word_model,
)

CASES = [(seed, order) for seed in (0, 1) for order in (1, 2, 3)]


def compiled(seed: int, order: int) -> tuple[DecodingGraph, SlowNgrams]:
    model = word_model(seed, order)
    grammar = grammar_from_arpa(model, WORDS)
    return compile_lg(lexicon_transducer(), grammar, TOKENS, WORDS), SlowNgrams(model)


@pytest.mark.parametrize(("seed", "order"), CASES)
def test_every_short_token_sequence(seed: int, order: int) -> None:
    graph, ngrams = compiled(seed, order)
    num_accepted = 0
    for length in range(5):
        for tokens in itertools.product("aenot", repeat=length):
            score, word_ids = best_path(graph, [TOKENS[token] for token in tokens])
            scores = {words: ngrams.best_path(words) for words in segmentations(tokens)}
            best = max(scores.values(), default=-math.inf)
            if best == -math.inf:
                assert score == -math.inf, tokens
                continue
            num_accepted += 1
            assert score == pytest.approx(best, abs=1e-3)
            words = tuple(WORDS.symbol(i) for i in word_ids)
            # Words that sound alike may be equally good.
            assert scores[words] == pytest.approx(best, abs=1e-3)
    assert num_accepted > 40
    # The empty sentence is among them, and NEVER, which the grammar lacks, is not.
    assert best_path(graph, [])[0] == pytest.approx(ngrams.best_path([]), abs=1e-3)


@pytest.mark.parametrize(("seed", "order"), CASES)
def test_long_sentences_are_at_least_as_good_as_the_model_says(seed: int, order: int) -> None:
    graph, ngrams = compiled(seed, order)
    rng = random.Random(seed)
    spelling = dict(LEXICON)
    words = [word for word in spelling if word not in ("NEVER", "TOO", "TWO")]
    for _ in range(30):
        sentence = rng.choices(words, k=rng.randint(5, 12))
        tokens = [TOKENS[token] for word in sentence for token in spelling[word]]
        assert best_path(graph, tokens)[0] > ngrams.by_arpa_rule(sentence) - 1e-3


@pytest.mark.parametrize("token", ["e", "t"])
def test_a_beginning_has_the_sum_of_its_words(token: str) -> None:
    graph, ngrams = compiled(0, 2)
    words = [word for word, spelling in LEXICON if spelling[0] == token]

    def total(history: tuple[str, ...]) -> float:
        ngrams_of_words = [(*history, word) for word in words]
        listed = [ngrams.log_probs[n] for n in ngrams_of_words if n in ngrams.log_probs]
        return float(np.logaddexp.reduce([-np.inf, *listed]))

    *_, active = active_states(graph, [TOKENS[token]])
    best = max(score for score, _ in active.values())
    expected = max(total(("<s>",)), ngrams.backoffs[("<s>",)] + total(()))
    assert best == pytest.approx(expected, abs=1e-3)


def test_there_are_no_epsilons_and_no_dead_ends() -> None:
    graph, _ = compiled(1, 3)
    assert (graph.labels > 0).all() and (graph.labels < TOKENS["#0"]).all()
    assert (graph.words > 0).all() and (graph.words < WORDS["#0"]).all()
    is_entered = np.zeros(graph.num_states, dtype=bool)
    is_entered[graph.dst] = True
    is_entered[0] = True
    assert is_entered.all()
    assert ((np.diff(graph.row_splits) > 0) | np.isfinite(graph.final_scores)).all()
    src = np.repeat(np.arange(graph.num_states), np.diff(graph.row_splits))
    order = np.lexsort((graph.dst, graph.labels, src))
    assert (order == np.arange(graph.num_arcs)).all()


def transducer(arcs: list[tuple[int, int, int, int, float]], finals: list[float]) -> Transducer:
    columns = np.array(arcs, dtype=np.float64).T
    labels = columns[:4].astype(np.int64)
    return transducer_from_arcs(0, *labels, columns[4], np.array(finals))


def arcs_of(graph: DecodingGraph) -> list[tuple[int, int, int, list[int], float]]:
    src = np.repeat(np.arange(graph.num_states), np.diff(graph.row_splits))
    splits = graph.word_splits
    return [
        (
            int(src[a]),
            int(graph.dst[a]),
            int(graph.labels[a]),
            graph.words[splits[a] : splits[a + 1]].tolist(),
            float(graph.scores[a]),
        )
        for a in range(graph.num_arcs)
    ]


def test_closures_of_an_example() -> None:
    # 0 -ε-> 3; 0 -5-> 1; 1 -ε:8-> 2 -ε:9-> 3; 1 -ε-> 3 (worse); 3 -6:7-> 0; 3 is final.
    # 2 has neither tokens nor an end, so nothing goes there.
    graph = remove_epsilons(
        transducer(
            [
                (0, 3, 0, 0, -1.0),
                (0, 1, 5, 4, -0.5),
                (1, 2, 0, 8, -0.25),
                (2, 3, 0, 9, -0.125),
                (1, 3, 0, 0, -3.0),
                (1, 1, 6, 0, -2.0),
                (3, 0, 6, 7, -4.0),
            ],
            [-np.inf, -np.inf, -np.inf, -0.5],
        )
    )
    assert graph.num_states == 3  # 0; 1; 3, now 2
    assert arcs_of(graph) == [
        (0, 1, 5, [4], -0.5),
        (0, 2, 5, [4, 8, 9], -0.875),
        (0, 0, 6, [7], -5.0),
        (0, 2, 6, [7], -6.0),
        (1, 1, 6, [], -2.0),
        (1, 2, 6, [8, 9], -2.375),
        (2, 0, 6, [7], -4.0),
        (2, 2, 6, [7], -5.0),
    ]
    assert graph.final_scores.tolist() == [-1.5, -np.inf, -0.5]


def test_circles_of_epsilons() -> None:
    circle = transducer([(0, 1, 0, 0, -1.0), (1, 0, 0, 0, -1.0), (1, 1, 5, 0, 0.0)], [0.0, 0.0])
    with pytest.raises(DataError, match="a circle of steps without a token"):
        remove_epsilons(circle)


def test_parts_that_do_not_fit() -> None:
    grammar = grammar_from_arpa(word_model(0, 2), WORDS)
    lexicon = lexicon_to_transducer([("NEVER", ["n"])], TOKENS, WORDS, has_backoff_loop=False)
    only_words = transducer_from_arcs(
        0, *np.array([[0], [1], [WORDS["A"]], [WORDS["A"]]]), np.zeros(1), np.array([-np.inf, 0.0])
    )
    with pytest.raises(DataError, match="accepts no sentence of the lexicon's words"):
        compile_lg(lexicon, only_words, TOKENS, WORDS)
    fewer = table_of("<eps>", "A", "#0", "<s>", "</s>")
    with pytest.raises(DataError, match=r"the grammar has label \d+, the symbol table ends at 2"):
        compile_lg(lexicon_transducer(), grammar, TOKENS, fewer)


def test_a_lexicon_without_disambiguation() -> None:
    grammar = grammar_from_arpa(word_model(0, 2), WORDS)
    plain = lexicon_to_transducer(LEXICON, TOKENS, WORDS, has_backoff_loop=True)
    with pytest.raises(DataError, match="cannot be determinized: some words are spelled alike"):
        compile_lg(plain, grammar, TOKENS, WORDS)


def test_graphs_that_would_grow_for_ever() -> None:
    # Only the last token tells whether all words before it were A or AT.
    a, end, one, two = TOKENS["a"], TOKENS["e"], WORDS["A"], WORDS["AT"]
    endless = transducer(
        [
            (0, 1, a, one, 0.0),
            (1, 1, a, one, 0.0),
            (1, 3, end, 0, 0.0),
            (0, 2, a, two, 0.0),
            (2, 2, a, two, 0.0),
            (2, 3, TOKENS["t"], 0, 0.0),
        ],
        [-np.inf, -np.inf, -np.inf, 0.0],
    )
    any_words = transducer([(0, 0, one, one, 0.0), (0, 0, two, two, 0.0)], [0.0])
    with pytest.raises(DataError, match="cannot be determinized"):
        compile_lg(endless, any_words, TOKENS, WORDS)


def test_sizes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        graph, _ = compiled(0, 2)
    assert "LG composed: " in caplog.text and "LG determinized: " in caplog.text
    assert f"{graph.num_states} states, {graph.num_arcs} arcs" in caplog.text
