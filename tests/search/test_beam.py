"""Beam search with several symbols a frame: the original's results, and one for every cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.search.beam import BeamSearch
from snowmelt.search.method import search_whole
from tests.search.fakes import OneTokenScorer, RandomScorer, ToyScorer, frames_batch, toy_batch


# Computed with the original beam_search.py on the same toy model.
@pytest.mark.parametrize(
    ("beam", "utterance", "tokens", "frames"),
    [
        (2, 0, "11324154134", "00122334456"),
        # A tie: 44512415 is as good.
        (2, 1, "44512253", "01123444"),
        (4, 0, "5544154134", "1123334456"),
        (4, 1, "44512415", "01123344"),
    ],
)
def test_tokens_and_frames_are_the_originals(beam, utterance, tokens, frames):
    search = BeamSearch(beam, max_sym_per_frame=None, icefall_compat=True)
    result = search_whole(search, ToyScorer(), *toy_batch())[utterance]
    assert "".join(map(str, result.tokens)) == tokens
    assert "".join(map(str, result.timestamps)) == frames


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, 9), max_size=4), seed=st.integers(0, 5))
def test_any_split_into_steps_and_any_company_give_the_same(cuts, seed):
    scorer = RandomScorer(seed=seed)
    search = BeamSearch(3)
    encoder_proj, lens = frames_batch(9, 4)
    whole = search_whole(search, scorer, encoder_proj, lens)
    states = [search.init_state(scorer)] * 2
    for start, stop in pairwise([0, *sorted(cuts), 9]):
        states = search.step(
            scorer, encoder_proj[:, start:stop], np.clip(lens - start, 0, stop - start), states
        )
        for n, state in enumerate(states):
            partial = search.result(scorer, state, is_final=False)
            assert partial.tokens[: partial.num_stable] == whole[n].tokens[: partial.num_stable]
    assert [search.result(scorer, state, is_final=True) for state in states] == whole
    for n in range(2):
        alone = search_whole(search, scorer, encoder_proj[n : n + 1, : lens[n]], lens[n : n + 1])
        assert alone == [whole[n]]


@pytest.mark.parametrize("max_sym", [1, 2, 5])
def test_a_frame_emits_no_more_than_it_may(max_sym):
    frames = np.ones((1, 3, 1), np.float32), np.array([3])
    search = BeamSearch(2, max_sym_per_frame=max_sym)
    for result in search.n_best(
        OneTokenScorer(),
        search.step(OneTokenScorer(), *frames, [search.init_state(OneTokenScorer())])[0],
        is_final=True,
    ):
        assert max((result.timestamps.count(t) for t in range(3)), default=0) <= max_sym


def test_a_token_may_follow_on_the_same_frame():
    assert any(
        len(set(r.timestamps)) < len(r.timestamps)
        for r in search_whole(BeamSearch(4), ToyScorer(), *toy_batch())
    )


def test_clear_result_goes_on_with_the_best_alone():
    scorer = RandomScorer(seed=2)
    search = BeamSearch()
    (state,) = search.step(scorer, *frames_batch(12), [search.init_state(scorer)])
    tokens = search.result(scorer, state, is_final=True).tokens
    kept = search.clear_result(scorer, state, keep_history=True)
    assert kept.start == tokens[-2:] and kept.num_frames == 12
    assert search.result(scorer, kept, is_final=True).tokens == ()
    dropped = search.clear_result(scorer, state, keep_history=False)
    assert dropped == search.init_state(scorer)._replace(num_frames=12)


def test_unk_is_never_emitted():
    results = search_whole(BeamSearch(), RandomScorer(unk_id=2), *frames_batch(12, 12))
    assert not any(2 in result.tokens for result in results)
    theirs = search_whole(
        BeamSearch(icefall_compat=True), RandomScorer(unk_id=2), *frames_batch(12, 12)
    )
    assert any(2 in result.tokens for result in theirs)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        BeamSearch(beam=0)
    with pytest.raises(ValueError, match="max_sym_per_frame must be at least 1, got 0"):
        BeamSearch(max_sym_per_frame=0)
