"""A language model in modified beam search: the original's results, and all sequences there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.search.context_graph import build_context_graph
from snowmelt.search.lm import WeightedLms, sentence_scores
from snowmelt.search.method import search_whole
from snowmelt.search.modified_beam import ModifiedBeamSearch
from tests.search.fake_lms import HistoryLm, toy_neural_lm, toy_ngram_lm
from tests.search.fakes import RandomScorer, ToyScorer, frames_batch, toy_batch
from tests.search.test_modified_beam import _all_sequences


def _scaled(lm, scale: float) -> WeightedLms:
    return WeightedLms(((lm, scale),))


def _original(lm, **options) -> ModifiedBeamSearch:
    return ModifiedBeamSearch(4, icefall_compat=True, lm=lm, **options)


# Computed with the original beam_search.py on the same toy models.
@pytest.mark.parametrize(
    ("search", "first", "second"),
    [
        (_original(_scaled(toy_neural_lm(), 0.5)), "134441 012456", "4415 0134"),
        (_original(_scaled(toy_neural_lm(), 2.0)), "5134 1346", "1111 0123"),
        (
            _original(WeightedLms(((toy_neural_lm(), 2.0), (toy_ngram_lm(), -0.5)))),
            "111131",
            "1111",
        ),
        (_original(_scaled(toy_ngram_lm(), 0.5), lm_only_ranks=True), "13215145", "4415"),
        (_original(_scaled(toy_ngram_lm(), 2.0), lm_only_ranks=True), "351", "3431"),
    ],
)
def test_tokens_and_frames_are_the_originals(search, first, second):
    for found, expected in zip(
        search_whole(search, ToyScorer(), *toy_batch()), (first, second), strict=True
    ):
        tokens, _, frames = expected.partition(" ")
        assert "".join(map(str, found.tokens)) == tokens
        assert not frames or "".join(map(str, found.timestamps)) == frames


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_scale_of_zero_is_no_model(seed, compat):
    scorer, batch = RandomScorer(seed=seed), frames_batch(12, 7)
    search = ModifiedBeamSearch(3, icefall_compat=compat, lm=_scaled(HistoryLm(4), 0.0))
    plain = ModifiedBeamSearch(3, icefall_compat=compat)
    assert search_whole(search, scorer, *batch) == search_whole(plain, scorer, *batch)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_all_is_the_sum_over_all_paths_times_the_model(seed):
    scorer = RandomScorer(vocab_size=3, seed=seed, dtype=np.float64)
    lm = HistoryLm(3, seed, np.float64)
    encoder_proj, lens = frames_batch(5)
    encoder_proj = encoder_proj.astype(np.float64)
    expected = {}
    for tokens, log_prob in _all_sequences(scorer, encoder_proj[0], 5).items():
        model = sentence_scores(lm, [tokens])[0] - lm.final_scores([tokens])[0]
        expected[tokens] = log_prob + 0.7 * model
    for compat in (False, True):
        search = ModifiedBeamSearch(len(expected) * 3, icefall_compat=compat, lm=_scaled(lm, 0.7))
        (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
        results = search.n_best(scorer, state, is_final=True)
        assert {r.tokens: r.log_prob for r in results} == pytest.approx(expected, abs=1e-12)
        best = max(expected, key=lambda tokens: expected[tokens] / (len(tokens) + 2))
        assert results[0].tokens == best


def test_what_the_original_ranks_by_is_in_no_log_prob():
    scorer = RandomScorer(vocab_size=3, dtype=np.float64)
    encoder_proj, lens = frames_batch(5)
    encoder_proj = encoder_proj.astype(np.float64)
    expected = _all_sequences(scorer, encoder_proj[0], 5)
    search = ModifiedBeamSearch(
        len(expected) * 3,
        icefall_compat=True,
        lm=HistoryLm(3, dtype=np.float64),
        lm_only_ranks=True,
    )
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    found = {r.tokens: r.log_prob for r in search.n_best(scorer, state, is_final=True)}
    assert found == pytest.approx(dict(expected), abs=1e-12)
    with pytest.raises(ValueError, match="needs icefall_compat"):
        ModifiedBeamSearch(lm=HistoryLm(3), lm_only_ranks=True)


class _Favours:
    """A model that adds 6 to one token, always."""

    vocab_size = 3

    def __init__(self, token: int) -> None:
        self._row = np.eye(3, dtype=np.float32)[token] * 6

    def start(self) -> None:
        return None

    def advance(self, states, token_ids):
        return list(states)

    def scores(self, states):
        return np.tile(self._row, (len(states), 1))

    def final_scores(self, states):
        return np.zeros(len(states), np.float32)


class _TwoTokens:
    """Blank on every frame; token 1 is 3 nats behind, token 2 more than 4."""

    context_size, blank_id, unk_id = 2, 0, None

    def decode(self, contexts):
        return np.zeros((len(contexts), 1), np.float32)

    def join(self, encoder_proj, decoder_proj):
        return np.tile(np.array([5, 2, 0.5], np.float32), (len(encoder_proj), 1))


def test_the_model_acts_on_its_own_frame_but_late_in_the_original():
    frame = np.zeros((1, 1, 1), np.float32), np.array([1])
    ours = ModifiedBeamSearch(1, lm=_Favours(2))
    theirs = ModifiedBeamSearch(1, icefall_compat=True, lm=_Favours(2))
    assert search_whole(ours, _TwoTokens(), *frame)[0].tokens == (2,)
    assert search_whole(theirs, _TwoTokens(), *frame)[0].tokens == ()


def test_blank_and_unk_get_no_score():
    frame = np.zeros((1, 1, 1), np.float32), np.array([1])
    (plain,) = search_whole(ModifiedBeamSearch(1), _TwoTokens(), *frame)
    search = ModifiedBeamSearch(1, lm=_Favours(0))
    assert search_whole(search, _TwoTokens(), *frame) == [plain]
    scorer = _TwoTokens()
    scorer.unk_id = 2
    (unknown,) = search_whole(ModifiedBeamSearch(1, lm=_Favours(2)), scorer, *frame)
    assert unknown.tokens == () and unknown.log_prob == plain.log_prob


def test_the_model_is_asked_for_new_tokens_only():
    lm = toy_neural_lm()
    search = ModifiedBeamSearch(4, lm=lm)
    encoder_proj = np.zeros((1, 50, 1), np.float32)
    results = search_whole(search, _Blanks(), encoder_proj, np.array([50]))
    assert results[0].tokens == () and lm.num_advanced <= 3 * 50


class _Blanks(ToyScorer):
    """Blank, everywhere."""

    def join(self, encoder_proj, decoder_proj):
        return np.tile(20 * np.eye(6, dtype=np.float32)[0], (len(encoder_proj), 1))


_GRAPH = build_context_graph([[1, 2], [1, 2, 3], [3]], [0.5, 1.0, 0.3])
_SEARCHES = [
    ModifiedBeamSearch(3, lm=_scaled(HistoryLm(4), 0.5)),
    ModifiedBeamSearch(4, blank_penalty=0.7, context_graph=_GRAPH, lm=HistoryLm(4, 1)),
    ModifiedBeamSearch(3, icefall_compat=True, lm=_scaled(HistoryLm(4, 2), 0.3)),
    ModifiedBeamSearch(
        3, icefall_compat=True, lm=_scaled(HistoryLm(4, 2), 0.3), lm_only_ranks=True
    ),
]


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 12), max_size=4),
    search=st.sampled_from(_SEARCHES),
    seed=st.integers(0, 5),
)
def test_any_split_into_steps_and_any_company_give_the_same(cuts, search, seed):
    scorer = RandomScorer(seed=seed)
    encoder_proj, lens = frames_batch(12, 7, 9)
    whole = search_whole(search, scorer, encoder_proj, lens)
    states = [search.init_state(scorer)] * 3
    for start, stop in itertools.pairwise([0, *sorted(cuts), 12]):
        own_lens = np.clip(lens - start, 0, stop - start)
        states = search.step(scorer, encoder_proj[:, start:stop], own_lens, states)
    assert [search.result(scorer, state, is_final=True) for state in states] == whole
    for n in range(3):
        alone = search_whole(search, scorer, encoder_proj[n : n + 1, : lens[n]], lens[n : n + 1])
        assert alone == [whole[n]]
    assert search_whole(search, scorer, encoder_proj[::-1], lens[::-1]) == whole[::-1]


def test_states_are_left_as_they_were():
    search, scorer = _SEARCHES[1], RandomScorer()
    encoder_proj, lens = frames_batch(12)
    (state,) = search.step(scorer, encoder_proj[:, :6], lens - 6, [search.init_state(scorer)])
    first = search.step(scorer, encoder_proj[:, 6:], lens - 6, [state])
    again = search.step(scorer, encoder_proj[:, 6:], lens - 6, [state])
    assert search.n_best(scorer, first[0], is_final=True) == search.n_best(
        scorer, again[0], is_final=True
    )


def test_clear_result_goes_on_after_the_same_tokens_or_from_the_start():
    search, scorer = ModifiedBeamSearch(3, lm=HistoryLm(4)), RandomScorer(seed=2)
    (state,) = search.step(scorer, *frames_batch(12), [search.init_state(scorer)])
    best = search.result(scorer, state, is_final=True)
    assert best.tokens
    kept = search.clear_result(scorer, state, keep_history=True)
    assert kept.lm is not None and kept.lm.states == (best.tokens,)
    assert kept.lm.totals.tolist() == [0.0]
    assert search.result(scorer, kept, is_final=True).tokens == ()
    assert search.clear_result(scorer, state, keep_history=False).lm is None
