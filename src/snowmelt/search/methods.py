"""Which search does a name stand for, and which of the options does it use?

Names, options and defaults are the original's (icefall's decode.py); streaming decoding of the
original has other defaults of its own, which its command sets.

Invariant: the only place that knows all searches; an option that a method does not use is left
alone.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from snowmelt.core.errors import ConfigError
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchMethod

__all__ = ["METHOD_NAMES", "SearchOptions", "build_search"]


@dataclass(frozen=True)
class SearchOptions:
    """What a search is built from; the names are those on the command line.

    Attributes:
        decoding_method: one of METHOD_NAMES.
        max_sym_per_frame: most tokens one encoder frame of 40 ms may emit, of greedy_search and
            beam_search; None for 1 and 5.
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
        ngram_lm_scale: what the scores of an LG graph are multiplied by.
        icefall_compat: the original's behaviour, faults included, where it differs.
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
    icefall_compat: bool = False


def build_search(options: SearchOptions) -> SearchMethod[Any]:
    """The search that the options name.

    Raises:
        ConfigError: there is no such method.
    """
    if options.decoding_method not in _BUILDERS:
        close = difflib.get_close_matches(options.decoding_method, METHOD_NAMES, n=1)
        raise ConfigError(
            f"unknown decoding method {options.decoding_method!r}; "
            f"choose one of {', '.join(METHOD_NAMES)}",
            f"did you mean {close[0]}?" if close else "",
        )
    return _BUILDERS[options.decoding_method](options)


def _greedy(options: SearchOptions) -> SearchMethod[Any]:
    return GreedySearch(
        max_sym_per_frame=options.max_sym_per_frame or 1,
        blank_penalty=options.blank_penalty,
        icefall_compat=options.icefall_compat,
    )


# A further search: one function above, one line here.
_BUILDERS: Final[dict[str, Callable[[SearchOptions], SearchMethod[Any]]]] = {
    "greedy_search": _greedy,
}

METHOD_NAMES: Final = tuple(_BUILDERS)
