"""Lattices, sampled paths, and the choice among sequences."""

from typing import Any

import numpy as np
import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.lattice_paths import sampled_paths
from snowmelt.search.method import n_best, search_whole
from snowmelt.search.nbest import NbestSearch, oracle
from snowmelt.text.graph import trivial_graph
from tests.search.fakes import RandomScorer, ToyScorer, frames_batch, toy_batch
from tests.search.graph_reference import all_alignments
from tests.search.test_fast_beam import random_graph


def nbest(*, sums_paths: bool = False, num_paths: int = 200, **options: Any) -> NbestSearch:
    search = FastBeamSearch(keeps_lattice=True, **options)
    return NbestSearch(search, num_paths=num_paths, sums_paths=sums_paths)


def test_as_the_original() -> None:
    encoder_proj, lens = toy_batch()
    search = nbest(ilme_scale=0.1, icefall_compat=True)
    results = search_whole(search, ToyScorer(), encoder_proj, lens)
    assert [(result.tokens, result.timestamps) for result in results] == [
        ((2, 4, 1, 3, 4), (0, 2, 3, 5, 6)),
        ((4, 1, 1), (1, 2, 3)),
    ]


def test_oracle_as_the_original() -> None:
    encoder_proj, lens = toy_batch()
    search, scorer = nbest(ilme_scale=0.1, icefall_compat=True), ToyScorer()
    states = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)] * 2)
    # Sequences at the same distance are as good: 2 4 1 5 and 4 3 are the original's.
    nearest = []
    for state, reference in zip(states, [[2, 4, 1], [3, 3]], strict=True):
        sequences = [hypothesis.tokens for hypothesis in search.hypotheses(state)]
        nearest.append(sequences[oracle(sequences, reference)])
    assert nearest[0] == (2, 4, 1, 5)
    assert len(nearest[1]) <= 2 and 3 in nearest[1]


def test_where_nothing_can_end_the_original_finds_nothing() -> None:
    encoder_proj, lens = toy_batch()
    search = nbest(beam=4.0, max_states=8, max_contexts=4, icefall_compat=True)
    results = search_whole(search, ToyScorer(), encoder_proj, lens)
    assert results[1].tokens == () and results[0].tokens


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sums_paths", [False, True])
@pytest.mark.parametrize("is_trivial", [False, True])
def test_values_are_those_of_brute_force(seed: int, sums_paths: bool, is_trivial: bool) -> None:
    """Every sequence is worth its best path, or the sum over all its paths and alignments."""
    scorer = RandomScorer(vocab_size=4, seed=seed)
    graph = trivial_graph(4) if is_trivial else random_graph(seed)
    encoder_proj, lens = frames_batch(4)
    search = nbest(
        graph=None if is_trivial else graph,
        beam=np.inf,
        max_states=0,
        max_contexts=0,
        sums_paths=sums_paths,
        num_paths=300,
    )
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    found = search.hypotheses(state)
    expected: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for (tokens, words), values in all_alignments(scorer, graph, encoder_proj[0]).items():
        expected.setdefault(words if graph.has_words else tokens, []).append(values)
    assert len(found) > 5
    for hypothesis in found:
        outputs = hypothesis.tokens if hypothesis.words is None else hypothesis.words
        values = np.array(expected[outputs])
        total = np.logaddexp.reduce(values[:, 1]) if sums_paths else values[:, 0].max()
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-4)
    total = np.logaddexp.reduce([v for own in expected.values() for _, v in own])
    assert search.lattice(state).log_total() == pytest.approx(total, abs=1e-4)
    # The best one is given, and is no worse than the best path.
    best = search.result(scorer, state, is_final=True)
    assert best.log_prob == max(hypothesis.log_prob for hypothesis in found)
    if not sums_paths:
        one_best = search.search.result(scorer, state, is_final=True)
        assert best.tokens == one_best.tokens and best.timestamps == one_best.timestamps
        assert best.token_logprobs == pytest.approx(one_best.token_logprobs)


def test_paths_come_as_often_as_they_are_probable() -> None:
    scorer = RandomScorer(vocab_size=3, seed=5)
    encoder_proj, lens = frames_batch(3)
    search = nbest(beam=np.inf, max_states=0, max_contexts=0)
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    lattice = search.lattice(state)
    num_paths = 20_000
    paths = sampled_paths(lattice, num_paths, 1.0)
    shares: dict[tuple[int, ...], int] = {}
    for path in paths:
        shares[tuple(path.tolist())] = shares.get(tuple(path.tolist()), 0) + 1
    total = lattice.log_total()
    expected = {path: np.exp(lattice.scores[list(path)].sum() - total) for path in shares}
    # Sampled without chance: no path is off by more than the places at its two ends.
    for path, count in shares.items():
        assert abs(count - num_paths * expected[path]) <= 2
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-2)
    # Every path leads from the start to the end, arc by arc.
    sources = np.repeat(np.arange(lattice.num_states), np.diff(lattice.row_splits))
    assert (sources[paths[:, 0]] == 0).all()
    assert (lattice.targets[paths[:, :-1]] == sources[paths[:, 1:]]).all()
    assert (lattice.targets[paths[:, -1]] == lattice.num_states - 1).all()


def test_a_smaller_scale_gives_more_sequences() -> None:
    scorer = RandomScorer(vocab_size=5, seed=5)
    encoder_proj, lens = frames_batch(8)
    search = nbest()
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    lattice = search.lattice(state)
    distinct = [len(np.unique(sampled_paths(lattice, 200, s), axis=0)) for s in (2.0, 1.0, 0.2)]
    assert distinct == sorted(distinct) and distinct[0] < distinct[-1]


@pytest.mark.parametrize("compat", [False, True])
def test_chunks_and_batch_mates_change_nothing(compat: bool) -> None:
    scorer = RandomScorer(vocab_size=5, seed=7)
    search = nbest(graph=random_graph(7, vocab_size=5), icefall_compat=compat, sums_paths=True)
    encoder_proj, lens = frames_batch(11, 6)
    together = search_whole(search, scorer, encoder_proj, lens)
    assert search_whole(search, scorer, encoder_proj[1:], lens[1:]) == together[1:]
    states = [search.init_state(scorer)]
    for begin, end in ((0, 1), (1, 1), (1, 7), (7, 11)):
        states = search.step(scorer, encoder_proj[:1, begin:end], np.array([end - begin]), states)
        assert search.result(scorer, states[0], is_final=False).num_stable == 0
    assert search.result(scorer, states[0], is_final=True) == together[0]


def test_a_new_segment_counts_frames_on() -> None:
    scorer = RandomScorer(vocab_size=5, seed=7)
    search = nbest()
    encoder_proj, lens = frames_batch(9)
    (first,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    fresh = search.clear_result(scorer, first, keep_history=False)
    (second,) = search.step(scorer, encoder_proj, lens, [fresh])
    a = search.result(scorer, first, is_final=True)
    b = search.result(scorer, second, is_final=True)
    assert b.tokens == a.tokens and b.timestamps == tuple(9 + t for t in a.timestamps)


def test_nothing_heard_is_nothing_said() -> None:
    scorer = RandomScorer(vocab_size=5)
    search = nbest()
    result = search.result(scorer, search.init_state(scorer), is_final=True)
    assert result.tokens == () and result.log_prob == 0.0


def test_oracle_prefers_fewer_substitutions_then_the_last() -> None:
    assert oracle([[1, 9, 3], [1, 3], [2, 3], [9]], [1, 2, 3]) == 2
    assert oracle([["A"], ["A", "B"], ["B"]], ["A", "B"]) == 1


def test_n_best_begins_with_the_result() -> None:
    scorer = RandomScorer(vocab_size=5, seed=7)
    search = nbest()
    encoder_proj, lens = frames_batch(9)
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    found = n_best(search, scorer, state, is_final=True)
    scores = [hypothesis.log_prob for hypothesis in found]
    assert len(found) > 5 and scores == sorted(scores, reverse=True)
    assert {h.tokens for h in found} == {h.tokens for h in search.hypotheses(state)}
    assert found[0] == search.result(scorer, state, is_final=True)
    # Before the end, and where a search knows one path, there is that one.
    assert len(n_best(search, scorer, state, is_final=False)) == 1
    best = search.search.result(scorer, state, is_final=True)
    assert n_best(search.search, scorer, state, is_final=True) == [best]


@pytest.mark.parametrize(
    "options, message",
    [({"num_paths": 0}, "num_paths must be"), ({"nbest_scale": 0.0}, "nbest_scale must be")],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NbestSearch(FastBeamSearch(keeps_lattice=True), **options)
    with pytest.raises(ValueError, match="must keep its lattice"):
        NbestSearch(FastBeamSearch())
