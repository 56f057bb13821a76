"""Names and options of the command line give the searches they mean."""

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.search.beam import BeamSearch
from snowmelt.search.context_graph import build_context_graph
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchMethod
from snowmelt.search.methods import METHOD_NAMES, SearchOptions, build_search
from snowmelt.search.modified_beam import ModifiedBeamSearch


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
    search: SearchMethod = build_search(SearchOptions(name))
    assert all(hasattr(search, verb) for verb in ("init_state", "step", "result", "clear_result"))
