"""Greedy search: the original's results on a toy model, and independence of batch and chunks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.search.greedy import GreedySearch, GreedyState
from snowmelt.search.method import SearchResult
from tests.search.fakes import OneTokenScorer, ToyScorer, toy_batch

# Computed with the original beam_search.py on the same toy model.
_MAX_1 = (
    ([1, 3, 2, 1, 5, 1, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]),
    ([4, 4, 1, 5], [0, 1, 3, 4]),
)
_MAX_2 = (
    ([1, 1, 1, 1, 1, 1, 2, 1, 1, 3, 1, 4], [0, 0, 1, 1, 2, 2, 4, 4, 6, 6, 7, 7]),
    ([4, 4, 5, 1, 2, 2, 5], [0, 1, 1, 2, 3, 4, 4]),
)
_MAX_3 = (
    (
        [1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 5, 1, 4, 1, 1],
        [0, 0, 1, 1, 1, 2, 2, 2, 4, 4, 4, 5, 6, 6, 6],
    ),
    ([4, 4, 5, 1, 2, 2, 5, 1], [0, 1, 1, 2, 3, 4, 4, 4]),
)


def _searched(scorer, encoder_proj, lens, **options) -> list[GreedyState]:
    search = GreedySearch(**options)
    return search.step(scorer, encoder_proj, lens, [search.init_state(scorer) for _ in lens])


def _tokens_at(states: list[GreedyState]) -> tuple[tuple[list[int], list[int]], ...]:
    return tuple((list(state.tokens), list(state.timestamps)) for state in states)


@pytest.mark.parametrize(("max_sym", "expected"), [(1, _MAX_1), (2, _MAX_2), (3, _MAX_3)])
def test_tokens_and_frames_are_the_originals(max_sym, expected):
    states = _searched(ToyScorer(), *toy_batch(), max_sym_per_frame=max_sym)
    assert _tokens_at(states) == expected


def test_logits_are_the_originals():
    states = _searched(ToyScorer(), *toy_batch())
    assert states[0].token_logits == (4.5, 5, 5, 4, 5, 4.5, 5, 5)
    assert states[1].token_logits == (5, 5, 3.5, 5)


def test_blank_penalty_is_the_originals():
    states = _searched(ToyScorer(), *toy_batch(), blank_penalty=1.0)
    assert _tokens_at(states) == (_MAX_1[0], ([4, 4, 2, 5, 1], [0, 1, 2, 3, 4]))


def test_logprobs_are_normalised_after_the_blank_penalty():
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    state = _searched(scorer, encoder_proj[:1], lens[:1], blank_penalty=2.0)[0]
    logits = scorer.join(encoder_proj[:1, 0], scorer.decode(np.array([[-1, 0]])))[0]
    logits[0] -= 2.0
    expected = logits[state.tokens[0]] - np.log(np.exp(logits.astype(np.float64)).sum())
    assert state.token_logprobs[0] == pytest.approx(expected, abs=1e-6)


def test_unk_is_passed_over_like_blank():
    states = _searched(ToyScorer(unk_id=4), *toy_batch())
    assert all(4 not in state.tokens for state in states)
    # Frame 10 prefers 4; frame 11 with the history of a start prefers 1 (with a 4 in it, 4 again).
    assert (states[1].tokens[0], states[1].timestamps[0]) == (1, 1)


@given(
    cuts=st.lists(st.integers(0, 8), max_size=5),
    max_sym=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 0.7]),
)
def test_any_split_into_steps_gives_the_same(cuts, max_sym, penalty):
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    search = GreedySearch(max_sym_per_frame=max_sym, blank_penalty=penalty)
    states = [search.init_state(scorer)] * 2
    edges = [0, *sorted(cuts), 8]
    for start, stop in pairwise(edges):
        states = search.step(
            scorer,
            encoder_proj[:, start:stop],
            np.clip(lens - start, 0, stop - start),
            states,
        )
    whole = _searched(scorer, encoder_proj, lens, max_sym_per_frame=max_sym, blank_penalty=penalty)
    for split, expected in zip(states, whole, strict=True):
        assert split.decoder_proj.tolist() == expected.decoder_proj.tolist()
        assert split._replace(decoder_proj=None) == expected._replace(decoder_proj=None)


@pytest.mark.parametrize("max_sym", [1, 3])
def test_batch_mates_change_nothing(max_sym):
    encoder_proj, lens = toy_batch()
    together = _searched(ToyScorer(), encoder_proj, lens, max_sym_per_frame=max_sym)
    for n in range(2):
        alone = _searched(
            ToyScorer(),
            encoder_proj[n : n + 1, : lens[n]],
            lens[n : n + 1],
            max_sym_per_frame=max_sym,
        )
        assert _tokens_at(alone) == _tokens_at(together[n : n + 1])


def test_the_joiner_runs_once_a_frame_and_stream():
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    _searched(scorer, encoder_proj, lens)
    assert scorer.num_joined_rows == lens.sum()


def test_states_are_left_as_they_were():
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    search = GreedySearch()
    start = [search.init_state(scorer)] * 2
    first = search.step(scorer, encoder_proj[:, :4], np.array([4, 4]), start)
    before = [state.decoder_proj.copy() for state in first]
    search.step(scorer, encoder_proj[:, 4:], lens - 4, first)
    assert start == [search.init_state(scorer)] * 2
    assert all((state.decoder_proj == old).all() for state, old in zip(first, before, strict=True))


def test_no_streams_and_no_frames():
    scorer = ToyScorer()
    nothing = np.zeros((0, 8, 1), np.float32)
    assert GreedySearch().step(scorer, nothing, np.zeros(0, np.int64), []) == []
    state = _searched(scorer, np.zeros((1, 0, 1), np.float32), np.array([0]))[0]
    assert state.tokens == () and state.num_frames == 0


def test_the_result_is_what_the_state_holds():
    state = _searched(ToyScorer(), *toy_batch())[1]
    expected = SearchResult(
        tokens=(4, 4, 1, 5),
        timestamps=(0, 1, 3, 4),
        token_logprobs=state.token_logprobs,
        words=None,
        log_prob=sum(state.token_logprobs),
        num_stable=4,
    )
    assert GreedySearch().result(ToyScorer(), state, is_final=False) == expected


def test_the_originals_faults_on_demand():
    scorer = ToyScorer(unk_id=4)
    assert _tokens_at(_searched(scorer, *toy_batch(), icefall_compat=True)) == _MAX_1
    frames = np.full((1, 700, 1), 1.0, np.float32)
    lens = np.array([700])
    for max_sym, expected in ((1, 700), (3, 1000)):
        state = _searched(
            OneTokenScorer(), frames, lens, max_sym_per_frame=max_sym, icefall_compat=True
        )[0]
        assert len(state.tokens) == expected
    state = _searched(OneTokenScorer(), frames, lens, max_sym_per_frame=3)[0]
    assert len(state.tokens) == 2100


def test_clear_result_keeps_or_drops_the_history():
    scorer = ToyScorer()
    state = _searched(scorer, *toy_batch())[0]
    kept = GreedySearch().clear_result(scorer, state, keep_history=True)
    assert kept.tokens == () and kept.num_frames == 8 and kept.context == (4, 5)
    dropped = GreedySearch().clear_result(scorer, state, keep_history=False)
    assert dropped == GreedySearch().init_state(scorer)._replace(num_frames=8)


def test_wrong_arguments_are_named():
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    with pytest.raises(ValueError, match="max_sym_per_frame must be at least 1, got 0"):
        _searched(scorer, encoder_proj, lens, max_sym_per_frame=0)
    with pytest.raises(ValueError, match=r"lens must lie in 0..8, got \[8, 9\]"):
        _searched(scorer, encoder_proj, np.array([8, 9]))
    with pytest.raises(ValueError, match=r"encoder_proj must be \(N, T, J\)"):
        GreedySearch().step(scorer, encoder_proj, lens, [GreedySearch().init_state(scorer)])
