"""Names and options of the command line give the searches they mean."""

import numpy as np
import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.search.beam import BeamSearch
from snowmelt.search.context_graph import build_context_graph
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.lm import WeightedLms
from snowmelt.search.method import SearchMethod, search_whole
from snowmelt.search.methods import (
    GRAPH_METHODS,
    LM_METHODS,
    METHOD_NAMES,
    NGRAM_METHODS,
    LanguageModels,
    SearchOptions,
    build_search,
)
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.search.nbest import NbestSearch
from snowmelt.search.rescoring import RescoringSearch
from snowmelt.text.graph import graph_from_k2_arcs, trivial_graph
from tests.search.fake_lms import toy_neural_lm, toy_ngram_lm
from tests.search.fakes import RandomScorer, frames_batch
from tests.search.test_fast_beam import random_graph

_LMS = LanguageModels(toy_neural_lm(), toy_ngram_lm())


@pytest.mark.parametrize(
    ("options", "search"),
    [
        ({}, GreedySearch()),
        ({"max_sym_per_frame": 3, "blank_penalty": 0.5}, GreedySearch(3, 0.5)),
        ({"decoding_method": "beam_search", "beam_size": 2}, BeamSearch(2)),
        (
            {"decoding_method": "beam_search", "icefall_compat": True},
            BeamSearch(4, None, icefall_compat=True),
        ),
        ({"decoding_method": "beam_search", "max_sym_per_frame": 2}, BeamSearch(4, 2)),
        (
            {
                "decoding_method": "modified_beam_search",
                "beam_size": 8,
                "temperature": 2.0,
                "blank_penalty": 1.0,
                "icefall_compat": True,
            },
            ModifiedBeamSearch(8, 1.0, 2.0, icefall_compat=True),
        ),
    ],
)
def test_options_reach_the_search(options, search):
    assert build_search(SearchOptions(**options)) == search


def test_hotwords_reach_the_search_or_are_refused():
    graph = build_context_graph([[1]], [1.0])
    search = build_search(SearchOptions("modified_beam_search"), context_graph=graph)
    assert isinstance(search, ModifiedBeamSearch) and search.context_graph is graph
    with pytest.raises(ConfigError, match="greedy_search knows no hotwords"):
        build_search(SearchOptions(), context_graph=graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoding_method": "modified_beam"}, "did you mean modified_beam_search?"),
        ({"decoding_method": "magic"}, f"choose one of {', '.join(METHOD_NAMES)}"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        SearchOptions(**options)
    assert message in str(error.value)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_name_is_a_search(name):
    graph = random_graph(0) if name in GRAPH_METHODS else None
    options = SearchOptions(name, ngram_lm_scale=-0.1)
    search: SearchMethod = build_search(options, graph=graph, lms=_LMS)
    assert all(hasattr(search, verb) for verb in ("init_state", "step", "result", "clear_result"))


class _Recording(RandomScorer):
    """Remembers the histories that it was asked for."""

    def __init__(self) -> None:
        super().__init__(vocab_size=6, unk_id=2)
        self.contexts: list[list[int]] = []

    def decode(self, contexts):
        self.contexts += contexts.tolist()
        return super().decode(contexts)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_search_begins_with_the_history_of_training(name):
    graph = _any_words(6) if name in GRAPH_METHODS else None
    search = build_search(SearchOptions(name, ngram_lm_scale=-0.1), graph=graph, lms=_LMS)
    scorer = _Recording()
    search_whole(search, scorer, *frames_batch(1))
    assert scorer.contexts[0] == [-1, 0]
    assert [0, 0] not in scorer.contexts


class _EdgeScorer(RandomScorer):
    """J = V: the frame is the logits."""

    def decode(self, contexts):
        return np.zeros((len(contexts), self.vocab_size), np.float32)

    def join(self, encoder_proj, decoder_proj):
        return encoder_proj + decoder_proj


@pytest.mark.parametrize("splits", [[9], [1, 7, 1]])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_no_search_loses_what_is_said_on_the_first_or_last_frame(name, splits):
    graph = _any_words(6) if name in GRAPH_METHODS else None
    options = SearchOptions(name, max_sym_per_frame=1, ngram_lm_scale=0.0, lm_scale=0.0)
    search = build_search(options, graph=graph, lms=_LMS)
    scorer = _EdgeScorer(vocab_size=6)
    frames = np.zeros((1, 9, 6), np.float32)
    frames[0, :, 0] = 9.0
    frames[0, 0, 3] = frames[0, 8, 4] = 18.0
    states = [search.init_state(scorer)]
    for piece in np.split(frames, np.cumsum(splits)[:-1], axis=1):
        states = search.step(scorer, piece, np.array([piece.shape[1]]), states)
    (state,) = states
    result = search.result(scorer, state, is_final=True)
    assert (result.tokens, result.timestamps) == ((3, 4), (0, 8))


def _any_words(vocab_size):
    """Every token is a word, all may follow all."""
    arcs = [(0, 0, label) for label in range(1, vocab_size)] + [(0, 1, -1)]
    words = list(range(1, vocab_size))
    return graph_from_k2_arcs(
        np.array(arcs),
        np.zeros(len(arcs), np.float32),
        np.array([*range(vocab_size), vocab_size - 1]),
        np.array(words, dtype=np.int64),
    )


def test_options_reach_the_graph_searches():
    options = {
        "beam": 5.0,
        "max_contexts": 3,
        "max_states": 9,
        "temperature": 2.0,
        "blank_penalty": 1.0,
    }
    search = build_search(SearchOptions("fast_beam_search", ilme_scale=0.3, **options))
    assert search == FastBeamSearch(ilme_scale=0.3, **options)
    nbest = build_search(
        SearchOptions("fast_beam_search_nbest", num_paths=7, nbest_scale=0.3, **options)
    )
    assert nbest == NbestSearch(FastBeamSearch(keeps_lattice=True, **options), 7, 0.3)


def test_the_original_subtracts_an_internal_language_model_in_nbest_alone():
    for name, scale in (("fast_beam_search_nbest", 0.1), ("fast_beam_search_nbest_LG", 0.0)):
        graph = random_graph(0)
        search = build_search(SearchOptions(name, icefall_compat=True), graph=graph)
        assert isinstance(search, NbestSearch) and search.search.ilme_scale == scale
        ours = build_search(SearchOptions(name), graph=graph)
        assert isinstance(ours, NbestSearch) and ours.search.ilme_scale == 0.0


def test_the_scale_is_of_lg_graphs():
    graph = random_graph(1)
    plain = build_search(SearchOptions("fast_beam_search"), graph=graph)
    scaled = build_search(SearchOptions("fast_beam_search_LG", ngram_lm_scale=0.5), graph=graph)
    assert isinstance(plain, FastBeamSearch) and plain.graph is graph
    assert isinstance(scaled, FastBeamSearch) and scaled.graph is not None
    assert scaled.graph.scores.tolist() == (0.5 * graph.scores).tolist()
    summed = build_search(SearchOptions("fast_beam_search_nbest_LG"), graph=graph)
    assert isinstance(summed, NbestSearch) and summed.sums_paths


def test_graphs_where_they_are_needed_and_nowhere_else():
    with pytest.raises(ConfigError, match="needs a graph with words"):
        build_search(SearchOptions("fast_beam_search_LG"))
    with pytest.raises(ConfigError, match="needs a graph with words"):
        build_search(SearchOptions("fast_beam_search_nbest_LG"), graph=trivial_graph(4))
    with pytest.raises(ConfigError, match="greedy_search searches without a graph"):
        build_search(SearchOptions(), graph=trivial_graph(4))


_MODIFIED = "modified_beam_search_"


def test_scales_and_models_reach_the_search():
    lm, ngram = _LMS
    scales = {"lm_scale": 0.4, "ngram_lm_scale": -0.16, "beam_size": 3}

    def built(name: str, **options) -> SearchMethod:
        return build_search(SearchOptions(_MODIFIED + name, **scales, **options), lms=_LMS)

    first_pass = ModifiedBeamSearch(3)
    assert built("lm_shallow_fusion") == ModifiedBeamSearch(3, lm=WeightedLms(((lm, 0.4),)))
    both = WeightedLms(((lm, 0.4), (ngram, -0.16)))
    assert built("LODR") == ModifiedBeamSearch(3, lm=both)
    one = WeightedLms(((ngram, -0.16),))
    assert built("ngram_rescoring") == ModifiedBeamSearch(3, lm=one)
    assert built("ngram_rescoring", icefall_compat=True) == ModifiedBeamSearch(
        3, icefall_compat=True, lm=one, lm_only_ranks=True
    )
    assert built("lm_rescore") == RescoringSearch(first_pass, lm, 0.4)
    assert built("lm_rescore_LODR") == RescoringSearch(first_pass, lm, 0.4, ngram, -0.16)


@pytest.mark.parametrize("name", sorted({*LM_METHODS, *NGRAM_METHODS}))
def test_a_missing_model_is_named(name):
    with pytest.raises(ConfigError, match=f"{name} needs a language model"):
        build_search(SearchOptions(name, ngram_lm_scale=-0.1))


@pytest.mark.parametrize("name", ["LODR", "lm_rescore_LODR"])
def test_the_ngram_of_lodr_is_taken_away(name):
    with pytest.raises(ConfigError, match="away, but ngram_lm_scale is 0.01"):
        SearchOptions(_MODIFIED + name)
