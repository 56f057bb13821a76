"""Modified beam search: the original's results on a toy model, and against all paths there are."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.search.context_graph import build_context_graph
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import search_whole
from snowmelt.search.modified_beam import ModifiedBeamSearch
from tests.search.fakes import RandomScorer, ToyScorer, frames_batch, toy_batch

_HOTWORDS = [[2, 4, 1], [3, 3]]


def _tokens_at(results) -> list[tuple[list[int], list[int]]]:
    return [(list(r.tokens), list(r.timestamps)) for r in results]


# Computed with the original beam_search.py on the same toy model.
@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({"beam": 2}, "13215145 01234567", "4415 0134"),
        ({"beam": 4}, "13215145 01234567", "4415 0134"),
        (
            {"beam": 4, "temperature": 2.0, "blank_penalty": 0.5},
            "13215145 01234567",
            "44251 01234",
        ),
        (
            {
                "beam": 4,
                "context_graph": build_context_graph(_HOTWORDS, [2.0, 2.0], rule="icefall"),
                "icefall_compat": True,
            },
            "3433241 0123467",
            "4415 0134",
        ),
    ],
)
def test_tokens_and_frames_are_the_originals(options, first, second):
    results = search_whole(ModifiedBeamSearch(**options), ToyScorer(), *toy_batch())
    found = [" ".join("".join(map(str, part)) for part in pair) for pair in _tokens_at(results)]
    assert found == [first, second]


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy_search(seed):
    scorer = RandomScorer(seed=seed)
    batch = frames_batch(12, 7, 1)
    expected = search_whole(GreedySearch(), scorer, *batch)
    assert _tokens_at(search_whole(ModifiedBeamSearch(beam=1), scorer, *batch)) == _tokens_at(
        expected
    )


def _all_sequences(scorer, encoder_proj, num_frames: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every token sequence: the sum over all its paths, slowly."""
    total: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(scorer.vocab_size), repeat=num_frames):
        tokens: tuple[int, ...] = ()
        log_prob = 0.0
        for t, token in enumerate(path):
            context = np.array([(-1, 0, *tokens)[-2:]])
            logits = scorer.join(encoder_proj[t : t + 1], scorer.decode(context))[0]
            log_prob += logits[token] - np.log(np.exp(logits).sum())
            tokens += (token,) if token else ()
        total[tokens] = np.logaddexp(total[tokens], log_prob)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_all_is_the_sum_over_all_paths_and_no_beam_exceeds_it(seed):
    scorer = RandomScorer(vocab_size=3, seed=seed, dtype=np.float64)
    encoder_proj, lens = frames_batch(5)
    encoder_proj = encoder_proj.astype(np.float64)
    expected = _all_sequences(scorer, encoder_proj[0], 5)
    # Entries are selected before equal ones are merged: there is room for all entries.
    search = ModifiedBeamSearch(beam=len(expected) * scorer.vocab_size)
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    found = {r.tokens: r.log_prob for r in search.n_best(scorer, state, is_final=True)}
    assert found.keys() == expected.keys()
    assert found == pytest.approx(dict(expected), abs=1e-12)
    best = max(expected, key=lambda tokens: expected[tokens] / (len(tokens) + 2))
    assert search.result(scorer, state, is_final=True).tokens == best
    for beam in (1, 2, 4, 8):
        (state,) = ModifiedBeamSearch(beam=beam).step(
            scorer, encoder_proj, lens, [search.init_state(scorer)]
        )
        for r in ModifiedBeamSearch(beam=beam).n_best(scorer, state, is_final=True):
            assert r.log_prob <= expected[r.tokens] + 1e-12


def _searches() -> list[ModifiedBeamSearch]:
    graph = build_context_graph([[1, 2], [1, 2, 3], [3]], [0.5, 1.0, 0.3])
    return [
        ModifiedBeamSearch(beam=3),
        ModifiedBeamSearch(beam=4, blank_penalty=0.7, temperature=1.3),
        ModifiedBeamSearch(beam=4, context_graph=graph),
    ]


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 12), max_size=5),
    search=st.sampled_from(_searches()),
    seed=st.integers(0, 5),
)
def test_any_split_into_steps_and_any_company_give_the_same(cuts, search, seed):
    scorer = RandomScorer(seed=seed)
    encoder_proj, lens = frames_batch(12, 7, 9)
    whole = search_whole(search, scorer, encoder_proj, lens)
    states = [search.init_state(scorer)] * 3
    stable: list[tuple[int, ...]] = [()] * 3
    edges = [0, *sorted(cuts), 12]
    for start, stop in itertools.pairwise(edges):
        states = search.step(
            scorer, encoder_proj[:, start:stop], np.clip(lens - start, 0, stop - start), states
        )
        for n, state in enumerate(states):
            partial = search.result(scorer, state, is_final=False)
            assert partial.tokens[: len(stable[n])] == stable[n]
            stable[n] = partial.tokens[: partial.num_stable]
    assert [search.result(scorer, state, is_final=True) for state in states] == whole
    for n in range(3):
        assert whole[n].tokens[: len(stable[n])] == stable[n]
        alone = search_whole(search, scorer, encoder_proj[n : n + 1, : lens[n]], lens[n : n + 1])
        assert alone == [whole[n]]
    backwards = search_whole(search, scorer, encoder_proj[::-1], lens[::-1])
    assert backwards == whole[::-1]


def test_the_order_of_equal_tokens_on_other_frames_is_one_hypothesis():
    search = ModifiedBeamSearch(beam=8)
    scorer = RandomScorer(seed=3)
    states = search.step(scorer, *frames_batch(12), [search.init_state(scorer)])
    found = [r.tokens for r in search.n_best(scorer, states[0], is_final=True)]
    assert len(found) == len(set(found)) == 8


def test_states_are_left_as_they_were():
    search = ModifiedBeamSearch()
    scorer = RandomScorer()
    encoder_proj, lens = frames_batch(12)
    (state,) = search.step(scorer, encoder_proj[:, :6], lens - 6, [search.init_state(scorer)])
    before = search.n_best(scorer, state, is_final=False)
    first = search.step(scorer, encoder_proj[:, 6:], lens - 6, [state])
    assert search.n_best(scorer, state, is_final=False) == before
    again = search.step(scorer, encoder_proj[:, 6:], lens - 6, [state])
    assert search.n_best(scorer, again[0], is_final=True) == search.n_best(
        scorer, first[0], is_final=True
    )


def test_logprobs_of_tokens_are_those_of_the_joiner():
    scorer = RandomScorer(seed=1)
    encoder_proj, lens = frames_batch(8)
    result = search_whole(ModifiedBeamSearch(blank_penalty=0.4), scorer, encoder_proj, lens)[0]
    assert result.tokens
    history = [-1, 0]
    for token, frame, logprob in zip(
        result.tokens, result.timestamps, result.token_logprobs, strict=True
    ):
        logits = scorer.join(
            encoder_proj[0, frame : frame + 1], scorer.decode(np.array([history[-2:]]))
        )[0].astype(np.float64)
        logits[0] -= 0.4
        assert logprob == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-5)
        history.append(token)


def test_unk_is_never_emitted_but_for_the_original():
    batch = frames_batch(12, 12)
    scorer = RandomScorer(unk_id=2)
    ours = search_whole(ModifiedBeamSearch(beam=4), scorer, *batch)
    theirs = search_whole(ModifiedBeamSearch(beam=4, icefall_compat=True), scorer, *batch)
    assert not any(2 in result.tokens for result in ours)
    assert any(2 in result.tokens for result in theirs)


class _TwoFrames:
    """Blank on both frames; token 1 is 3 nats behind, token 2 more than 4."""

    context_size, blank_id, unk_id = 2, 0, None

    def decode(self, contexts):
        return np.zeros((len(contexts), 1), np.float32)

    def join(self, encoder_proj, decoder_proj):
        return np.tile(np.array([5, 2, 0.5], np.float32), (len(encoder_proj), 1))


def test_a_hotword_acts_on_its_own_frame_but_late_in_the_original():
    scorer = _TwoFrames()
    one_frame = np.zeros((1, 1, 1), np.float32), np.array([1])
    graph = build_context_graph([[2]], [6.0])
    # One hypothesis: token 2 must be lifted over blank before the others are thrown away.
    assert search_whole(ModifiedBeamSearch(1, context_graph=graph), scorer, *one_frame)[0].tokens
    late = build_context_graph([[2]], [6.0], rule="icefall")
    search = ModifiedBeamSearch(1, context_graph=late, icefall_compat=True)
    assert not search_whole(search, scorer, *one_frame)[0].tokens


def test_an_unfinished_hotword_is_refunded_at_the_end_only():
    scorer = _TwoFrames()
    search = ModifiedBeamSearch(4, context_graph=build_context_graph([[2, 1]], [6.0]))
    frame = np.zeros((1, 1, 1), np.float32), np.array([1])
    (state,) = search.step(scorer, *frame, [search.init_state(scorer)])
    assert search.result(scorer, state, is_final=False).tokens == (2,)
    assert search.result(scorer, state, is_final=True).tokens == ()
    (state,) = search.step(scorer, *frame, [state])
    assert search.result(scorer, state, is_final=True).tokens == (2, 1)


def test_clear_result_goes_on_with_the_best_alone():
    scorer = RandomScorer(seed=2)
    search = ModifiedBeamSearch()
    (state,) = search.step(scorer, *frames_batch(12), [search.init_state(scorer)])
    tokens = search.result(scorer, state, is_final=True).tokens
    kept = search.clear_result(scorer, state, keep_history=True)
    assert search.result(scorer, kept, is_final=False).tokens == ()
    assert kept.num_frames == 12
    frames = np.full((1, 1, 1), 5, np.float32), np.array([1])
    first = search.result(scorer, search.step(scorer, *frames, [kept])[0], is_final=True)
    assert all(frame == 12 for frame in first.timestamps)
    logits = scorer.join(frames[0][:, 0], scorer.decode(np.array([tokens[-2:]])))
    assert first.log_prob == pytest.approx(
        float((logits - np.log(np.exp(logits).sum())).max()), abs=1e-5
    )
    dropped = search.clear_result(scorer, state, keep_history=False)
    assert dropped.codes == search.init_state(scorer).codes and dropped.num_frames == 12


def test_no_streams_no_frames_and_wrong_arguments():
    scorer = RandomScorer()
    search = ModifiedBeamSearch()
    assert search.step(scorer, np.zeros((0, 3, 1), np.float32), np.zeros(0, np.int64), []) == []
    result = search_whole(search, scorer, np.zeros((1, 0, 1), np.float32), np.array([0]))[0]
    assert result.tokens == () and result.log_prob == 0
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        ModifiedBeamSearch(beam=0)
    with pytest.raises(ValueError, match=r"lens must lie in 0..3"):
        search.step(
            scorer, np.zeros((1, 3, 1), np.float32), np.array([4]), [search.init_state(scorer)]
        )
