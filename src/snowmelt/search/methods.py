"""Which search does a name stand for, and which of the options does it use?

Names, options and defaults are the original's (icefall's decode.py); streaming decoding of the
original has other defaults of its own, which its command sets.

Invariant: the only place that knows all searches; an option that a method does not use is left
alone.
"""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from snowmelt.core.errors import ConfigError
from snowmelt.search.beam import BeamSearch
from snowmelt.search.context_graph import ContextGraph
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.lm import LanguageModel, WeightedLms
from snowmelt.search.method import SearchMethod
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.search.nbest import NbestSearch
from snowmelt.search.rescoring import RescoringSearch
from snowmelt.text.graph import DecodingGraph

__all__ = [
    "GRAPH_METHODS",
    "HOTWORD_METHODS",
    "LG_METHODS",
    "LM_METHODS",
    "METHOD_NAMES",
    "NGRAM_METHODS",
    "ORACLE_METHODS",
    "RESCORING_METHODS",
    "LanguageModels",
    "SearchOptions",
    "build_search",
]

# A frame of 40 ms does not hold more; the original has no limit.
_BEAM_SEARCH_SYMBOLS: Final = 5

# The original's, never asked for.
_COMPAT_ILME_SCALE: Final = 0.1


@dataclass(frozen=True)
class SearchOptions:
    """What a search is built from; the names are those on the command line.

    Attributes:
        decoding_method: one of METHOD_NAMES.
        max_sym_per_frame: most tokens one encoder frame of 40 ms may emit, of greedy_search and
            beam_search; None for 1 and 5 (icefall_compat: any number).
        blank_penalty: subtracted from the logit of blank: above 0 gives fewer deletions and more
            insertions.
        temperature: logits are divided by it before they become probabilities; greedy_search has
            none.
        beam_size: hypotheses kept an utterance, of beam_search and modified_beam_search; streaming
            decoding calls it num_active_paths.
        beam: score below the best at which a state is dropped, of fast_beam_search.
        max_contexts: most contexts kept an utterance, of fast_beam_search.
        max_states: most states kept an utterance, of fast_beam_search.
        num_paths: paths drawn from the lattice, of the nbest methods.
        nbest_scale: what lattice scores are multiplied by before paths are drawn.
        ngram_lm_scale: what the scores of an LG graph are multiplied by, or those of the token
            n-gram; below 0 in the LODR methods, which take it away.
        lm_type: which language model: rnn, transformer, or an order of token n-grams, as in 3gram.
        lm_scale: what its scores are multiplied by.
        tokens_ngram: order of the token n-gram, of LODR and modified_beam_search_ngram_rescoring.
        ilme_scale: share of the internal language model that is subtracted, of fast_beam_search;
            None for 0 (icefall_compat: 0.1 in fast_beam_search_nbest).
        icefall_compat: the original's behaviour, faults included, where it differs.

    Raises:
        ConfigError: there is no such method, or a value is too small.
    """

    decoding_method: str = "greedy_search"
    max_sym_per_frame: int | None = None
    blank_penalty: float = 0.0
    temperature: float = 1.0
    beam_size: int = 4
    beam: float = 20.0
    max_contexts: int = 8
    max_states: int = 64
    num_paths: int = 200
    nbest_scale: float = 0.5
    ngram_lm_scale: float = 0.01
    lm_type: str = "3gram"
    lm_scale: float = 0.3
    tokens_ngram: int = 2
    ilme_scale: float | None = None
    icefall_compat: bool = False

    def __post_init__(self) -> None:
        if self.decoding_method not in METHOD_NAMES:
            close = difflib.get_close_matches(self.decoding_method, METHOD_NAMES, n=1)
            raise ConfigError(
                f"unknown decoding method {self.decoding_method!r}; "
                f"choose one of {', '.join(METHOD_NAMES)}",
                f"did you mean {close[0]}?" if close else "",
            )
        if self.temperature <= 0.0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}")
        for name in ("beam_size", "num_paths"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.decoding_method.endswith("LODR") and self.ngram_lm_scale > 0.0:
            raise ConfigError(
                f"{self.decoding_method} takes the token n-gram away, but ngram_lm_scale is "
                f"{self.ngram_lm_scale}",
                "choose one below 0, about -0.4 times lm_scale",
            )


class LanguageModels(NamedTuple):
    """The models that a search may need; None for none.

    Attributes:
        lm: of LM_METHODS, times lm_scale.
        ngram: the token n-gram of NGRAM_METHODS, times ngram_lm_scale.
    """

    lm: LanguageModel[Any] | None = None
    ngram: LanguageModel[Any] | None = None


_NO_LMS: Final = LanguageModels()


def build_search(
    options: SearchOptions,
    *,
    context_graph: ContextGraph | None = None,
    graph: DecodingGraph | None = None,
    lms: LanguageModels = _NO_LMS,
) -> SearchMethod[Any]:
    """The search that the options name.

    Args:
        options: its name and its settings.
        context_graph: hotwords, see `search.hotwords`.
        graph: what may follow what, of the graph searches. Those of LG need one, with words, and
            multiply its scores by ngram_lm_scale; the others search without if there is none.
        lms: language models; those that the method has no use for are left alone.

    Raises:
        ConfigError: the method knows no hotwords or no graph, or needs one, or a language model.
    """
    if context_graph is not None and options.decoding_method not in HOTWORD_METHODS:
        raise ConfigError(
            f"{options.decoding_method} knows no hotwords",
            f"choose one of {', '.join(HOTWORD_METHODS)}",
        )
    if options.decoding_method in _GRAPH_BUILDERS:
        return _GRAPH_BUILDERS[options.decoding_method](options, graph)
    if graph is not None:
        raise ConfigError(
            f"{options.decoding_method} searches without a graph",
            f"choose one of {', '.join(GRAPH_METHODS)}",
        )
    if options.decoding_method in _LM_BUILDERS:
        return _LM_BUILDERS[options.decoding_method](options, context_graph, lms)
    return _BUILDERS[options.decoding_method](options, context_graph)


def _greedy(options: SearchOptions, _: ContextGraph | None) -> SearchMethod[Any]:
    return GreedySearch(
        max_sym_per_frame=options.max_sym_per_frame or 1,
        blank_penalty=options.blank_penalty,
        icefall_compat=options.icefall_compat,
    )


def _beam(options: SearchOptions, _: ContextGraph | None) -> SearchMethod[Any]:
    limit = options.max_sym_per_frame
    if limit is None and not options.icefall_compat:
        limit = _BEAM_SEARCH_SYMBOLS
    return BeamSearch(
        beam=options.beam_size,
        max_sym_per_frame=limit,
        blank_penalty=options.blank_penalty,
        temperature=options.temperature,
        icefall_compat=options.icefall_compat,
    )


def _modified_beam(
    options: SearchOptions, context_graph: ContextGraph | None
) -> ModifiedBeamSearch:
    return ModifiedBeamSearch(
        beam=options.beam_size,
        blank_penalty=options.blank_penalty,
        temperature=options.temperature,
        context_graph=context_graph,
        icefall_compat=options.icefall_compat,
    )


_Builder = Callable[[SearchOptions, ContextGraph | None], SearchMethod[Any]]

# A further search: one function above, one line here.
_BUILDERS: Final[dict[str, _Builder]] = {
    "greedy_search": _greedy,
    "beam_search": _beam,
    "modified_beam_search": _modified_beam,
}


def _shallow_fusion(
    options: SearchOptions, context_graph: ContextGraph | None, lms: LanguageModels
) -> SearchMethod[Any]:
    lm = WeightedLms(((_needed(lms.lm, options), options.lm_scale),))
    return dataclasses.replace(_modified_beam(options, context_graph), lm=lm)


def _lodr(
    options: SearchOptions, context_graph: ContextGraph | None, lms: LanguageModels
) -> SearchMethod[Any]:
    parts = (
        (_needed(lms.lm, options), options.lm_scale),
        (_needed(lms.ngram, options), options.ngram_lm_scale),
    )
    return dataclasses.replace(_modified_beam(options, context_graph), lm=WeightedLms(parts))


def _ngram_rescoring(
    options: SearchOptions, context_graph: ContextGraph | None, lms: LanguageModels
) -> SearchMethod[Any]:
    lm = WeightedLms(((_needed(lms.ngram, options), options.ngram_lm_scale),))
    return dataclasses.replace(
        _modified_beam(options, context_graph), lm=lm, lm_only_ranks=options.icefall_compat
    )


def _lm_rescore(
    options: SearchOptions, context_graph: ContextGraph | None, lms: LanguageModels
) -> SearchMethod[Any]:
    first_pass = _modified_beam(options, context_graph)
    return RescoringSearch(first_pass, _needed(lms.lm, options), options.lm_scale)


def _lm_rescore_lodr(
    options: SearchOptions, context_graph: ContextGraph | None, lms: LanguageModels
) -> SearchMethod[Any]:
    return RescoringSearch(
        _modified_beam(options, context_graph),
        _needed(lms.lm, options),
        options.lm_scale,
        _needed(lms.ngram, options),
        options.ngram_lm_scale,
    )


def _needed(lm: LanguageModel[Any] | None, options: SearchOptions) -> LanguageModel[Any]:
    if lm is None:
        raise ConfigError(
            f"{options.decoding_method} needs a language model",
            "name its folder with --lm-exp-dir, that of token n-grams with --lang-dir",
        )
    return lm


_LmBuilder = Callable[[SearchOptions, ContextGraph | None, LanguageModels], SearchMethod[Any]]

# Those that add the scores of language models to modified beam search.
_LM_BUILDERS: Final[dict[str, _LmBuilder]] = {
    "modified_beam_search_lm_shallow_fusion": _shallow_fusion,
    "modified_beam_search_LODR": _lodr,
    "modified_beam_search_ngram_rescoring": _ngram_rescoring,
    "modified_beam_search_lm_rescore": _lm_rescore,
    "modified_beam_search_lm_rescore_LODR": _lm_rescore_lodr,
}


def _fast_beam(
    options: SearchOptions,
    graph: DecodingGraph | None,
    *,
    keeps_lattice: bool = False,
    default_ilme_scale: float = 0.0,
) -> FastBeamSearch:
    ilme_scale = options.ilme_scale
    if ilme_scale is None:
        ilme_scale = default_ilme_scale if options.icefall_compat else 0.0
    return FastBeamSearch(
        graph=graph,
        beam=options.beam,
        max_contexts=options.max_contexts,
        max_states=options.max_states,
        temperature=options.temperature,
        blank_penalty=options.blank_penalty,
        ilme_scale=ilme_scale,
        keeps_lattice=keeps_lattice,
        icefall_compat=options.icefall_compat,
    )


def _fast_beam_lg(options: SearchOptions, graph: DecodingGraph | None) -> SearchMethod[Any]:
    return _fast_beam(options, _word_graph(options, graph))


def _nbest(options: SearchOptions, graph: DecodingGraph | None) -> SearchMethod[Any]:
    search = _fast_beam(options, graph, keeps_lattice=True, default_ilme_scale=_COMPAT_ILME_SCALE)
    return NbestSearch(search, num_paths=options.num_paths, nbest_scale=options.nbest_scale)


def _nbest_lg(options: SearchOptions, graph: DecodingGraph | None) -> SearchMethod[Any]:
    return NbestSearch(
        _fast_beam(options, _word_graph(options, graph), keeps_lattice=True),
        num_paths=options.num_paths,
        nbest_scale=options.nbest_scale,
        sums_paths=True,
    )


def _word_graph(options: SearchOptions, graph: DecodingGraph | None) -> DecodingGraph:
    """The graph of an LG method, scaled."""
    if graph is None or not graph.has_words:
        raise ConfigError(
            f"{options.decoding_method} needs a graph with words",
            "give the folder of a language with --lang-dir, or a graph with --graph",
        )
    return graph.with_scale(options.ngram_lm_scale)


_GraphBuilder = Callable[[SearchOptions, DecodingGraph | None], SearchMethod[Any]]

# Those that walk along a graph.
_GRAPH_BUILDERS: Final[dict[str, _GraphBuilder]] = {
    "fast_beam_search": _fast_beam,
    "fast_beam_search_LG": _fast_beam_lg,
    "fast_beam_search_nbest": _nbest,
    "fast_beam_search_nbest_oracle": _nbest,
    "fast_beam_search_nbest_LG": _nbest_lg,
}

METHOD_NAMES: Final = (*_BUILDERS, *_LM_BUILDERS, *_GRAPH_BUILDERS)

GRAPH_METHODS: Final = tuple(_GRAPH_BUILDERS)

# Those that need the graph of a language, and scale it.
LG_METHODS: Final = ("fast_beam_search_LG", "fast_beam_search_nbest_LG")

# Those whose hypotheses are chosen from by what was really said. The search does not know it and
# takes the best: who asks for its n-best list has to choose.
ORACLE_METHODS: Final = ("fast_beam_search_nbest_oracle",)

# Those that take phrases to listen for.
HOTWORD_METHODS: Final = ("modified_beam_search", *_LM_BUILDERS)

# Those that need a language model, and those that need a token n-gram.
LM_METHODS: Final = tuple(name for name in _LM_BUILDERS if "ngram" not in name)
NGRAM_METHODS: Final = tuple(name for name in _LM_BUILDERS if "ngram" in name or "LODR" in name)

# Those that search without a language model, and choose with it at the end.
RESCORING_METHODS: Final = tuple(name for name in _LM_BUILDERS if "lm_rescore" in name)
