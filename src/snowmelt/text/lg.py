"""Which graph allows the tokens of known words only, and scores them with a word n-gram model?

Invariant: the graph has no epsilons. The best path of a token sequence has the best score that
lexicon and n-gram model give to any of its word sequences, and writes those words; a beginning has
the score of everything it may still become (the log of the sum of its words' probabilities).

What is compiled. Lexicon and grammar are composed and determinized with the weights pushed to the
front as sums. Backoffs and the disambiguation symbols are then steps without a token. They are
taken away here, not by the search: every arc u → d becomes one arc to *each* state that d reaches
without a token (d included) and from which a token can be taken or the sentence end; the arc takes
up the scores and words on the way. The start gets the arcs and the end of its own closure: so the
empty sentence is accepted. This is what k2 stores as LG.pt, and it makes the set of active states
of a search, their scores and hence all prunings equal to the original's. The graph is not
deterministic: a word's own n-gram and its backed-off form lie side by side, and the better wins.

Source: icefall, egs/librispeech/ASR/local/compile_lg.py; Mohri, Pereira, Riley: Weighted
Finite-State Transducers in Speech Recognition (2002).
"""

import logging
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.text.graph import DecodingGraph
from snowmelt.text.openfst import from_openfst, to_openfst
from snowmelt.text.symbols import BACKOFF, SymbolTable
from snowmelt.text.transducer import Transducer

__all__ = ["compile_lg", "remove_epsilons"]

# Determinizing joins states whose weights differ by less. OpenFst's 2^-10 would let the errors of a
# long sentence add up to what the search can see; float32 sums are good to about 1e-5.
_DELTA: Final = 2.0**-16

# A disambiguated lexicon determinizes to fewer states than its composition has (0.95 of them in
# word n-grams). One that is not would go on for ever.
_MAX_GROWTH: Final = 4

# Steps without a token in a row: backoffs (the order of the model) and the ends of words.
_MAX_EPSILONS: Final = 64

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)


def compile_lg(
    lexicon: Transducer, grammar: Transducer, tokens: SymbolTable, words: SymbolTable
) -> DecodingGraph:
    """Compile lexicon and grammar into one graph over tokens (LG).

    Args:
        lexicon: `lexicon_to_transducer` of disambiguated entries, with the loop for backoffs.
        grammar: `grammar_from_arpa`, over the same words.
        tokens: the table of the lexicon's labels; ids from that of `#0` on are disambiguation.
        words: the table of the grammar's labels; `#0` and what follows are no words.

    Raises:
        DataError: no word of the lexicon is in the grammar, the grammar belongs to another word
            table, or the lexicon is not disambiguated.
    """
    import kaldifst

    if grammar.ilabels.max(initial=0) > words[BACKOFF]:
        raise DataError(
            f"the grammar has label {grammar.ilabels.max()}, {words.name} ends at {words[BACKOFF]}",
            "make the grammar again with this word table",
        )
    watch = _Watch()
    left, right = to_openfst(lexicon), to_openfst(grammar)
    kaldifst.arcsort(left, sort_type="olabel")
    kaldifst.arcsort(right, sort_type="ilabel")
    composed = kaldifst.StdVectorFst(kaldifst.compose(left, right))
    del left, right
    num_composed = composed.num_states
    if not num_composed:
        raise DataError(
            "the grammar accepts no sentence of the lexicon's words",
            "make both from the same words, in the same spelling (upper or lower case)",
        )
    watch.log("composed", num_composed, None)
    max_states = _MAX_GROWTH * num_composed + 1000
    try:
        is_stopped = kaldifst.determinize_star(
            composed, delta=_DELTA, max_states=max_states, use_log=True
        )
    except RuntimeError:  # "not functional": one spelling, two sentences
        is_stopped = True
    if is_stopped:
        raise DataError(
            "lexicon and grammar cannot be determinized: some words are spelled alike",
            "make the lexicon's disambiguation symbols again",
        )
    kaldifst.connect(composed)
    graph = from_openfst(composed)
    del composed
    watch.log("determinized", graph.num_states, graph.num_arcs)
    lg = remove_epsilons(_without_disambiguation(graph, tokens[BACKOFF], words[BACKOFF]))
    watch.log("without epsilons", lg.num_states, lg.num_arcs)
    return lg


def remove_epsilons(graph: Transducer) -> DecodingGraph:
    """Put steps without a token into the arcs before them, as the head of this file says.

    Args:
        graph: input labels are tokens, 0 is epsilon; from any state only so many epsilons follow
            one another.

    Returns:
        states that can be reached, the start first; arcs sorted by token, then by target.

    Raises:
        DataError: epsilons go round in a circle.
    """
    closure = _closure(graph)
    has_tokens = np.zeros(graph.num_states, dtype=bool)
    has_tokens[graph.src[graph.ilabels > 0]] = True
    closure = closure.where((has_tokens | np.isfinite(graph.final_scores))[closure.target])

    final_scores = graph.final_scores.astype(np.float64)
    arcs = _arcs_to_closures(graph, closure)
    arcs = arcs.joined_with(_arcs_from_start(graph, closure, arcs))
    # Words before an end without any token would stand on no arc; `#n` follows a token, so there
    # are none.
    own = closure.of(graph.start)
    ends = closure.scores[own] + final_scores[closure.target[own]]
    final_scores[graph.start] = ends.max(initial=-np.inf)
    return _graph_of(graph.start, arcs, final_scores)


class _Watch:
    """Says how long steps took and how large their results are."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()

    def log(self, what: str, num_states: int, num_arcs: int | None) -> None:
        now = time.perf_counter()
        arcs = f", {num_arcs} arcs" if num_arcs is not None else ""
        _log.info("LG %s: %d states%s, %.1f s", what, num_states, arcs, now - self.begun)
        self.begun = now


@dataclass(frozen=True)
class _Words:
    """Rows of word ids: row i is values[splits[i] : splits[i + 1]]."""

    splits: _Int64
    values: _Int32

    @staticmethod
    def of_labels(labels: _Int32) -> "_Words":
        """A row of one word for every label, of none for label 0."""
        splits = np.zeros(len(labels) + 1, dtype=np.int64)
        np.cumsum(labels > 0, out=splits[1:])
        return _Words(splits, labels[labels > 0])

    def take(self, rows: _Int64) -> "_Words":
        lens = np.diff(self.splits)[rows]
        splits = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lens, out=splits[1:])
        source = np.repeat(self.splits[rows] - splits[:-1], lens) + np.arange(splits[-1])
        return _Words(splits, self.values[source])

    def followed_by(self, other: "_Words") -> "_Words":
        lens, other_lens = np.diff(self.splits), np.diff(other.splits)
        splits = self.splits + other.splits
        values = np.empty(splits[-1], dtype=np.int32)
        values[np.arange(len(self.values)) + np.repeat(other.splits[:-1], lens)] = self.values
        values[np.arange(len(other.values)) + np.repeat(self.splits[1:], other_lens)] = other.values
        return _Words(splits, values)

    def joined_with(self, other: "_Words") -> "_Words":
        splits = np.concatenate([self.splits, other.splits[1:] + self.splits[-1]])
        return _Words(splits, np.concatenate([self.values, other.values]))


@dataclass(frozen=True)
class _Arcs:
    src: _Int32
    dst: _Int32
    labels: _Int32
    scores: _Float32
    words: _Words

    def joined_with(self, other: "_Arcs") -> "_Arcs":
        return _Arcs(
            np.concatenate([self.src, other.src]),
            np.concatenate([self.dst, other.dst]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.scores, other.scores]),
            self.words.joined_with(other.words),
        )

    def take(self, places: _Int64) -> "_Arcs":
        return _Arcs(
            self.src[places],
            self.dst[places],
            self.labels[places],
            self.scores[places],
            self.words.take(places),
        )


@dataclass(frozen=True)
class _Closure:
    """What every state reaches without a token: entries (origin, target), sorted by origin."""

    origin: _Int32
    target: _Int32
    scores: _Float64
    words: _Words

    def where(self, is_kept: npt.NDArray[np.bool_]) -> "_Closure":
        return self.take(np.flatnonzero(is_kept))

    def take(self, places: _Int64) -> "_Closure":
        return _Closure(
            self.origin[places],
            self.target[places],
            self.scores[places],
            self.words.take(places),
        )

    def joined_with(self, other: "_Closure") -> "_Closure":
        return _Closure(
            np.concatenate([self.origin, other.origin]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.scores, other.scores]),
            self.words.joined_with(other.words),
        )

    def of(self, state: int) -> _Int64:
        """Places of the entries of one state."""
        return np.flatnonzero(self.origin == state)


def _arcs_to_closures(graph: Transducer, closure: _Closure) -> _Arcs:
    """Arcs with a token, each once for every target in the closure of its own target."""
    arcs = np.flatnonzero(graph.ilabels > 0)
    item, entry = _expand(graph.dst[arcs], _splits(closure.origin, graph.num_states))
    arc = arcs[item]
    words = _Words.of_labels(graph.olabels[arc]).followed_by(closure.words.take(entry))
    return _Arcs(
        src=graph.src[arc].astype(np.int32),
        dst=closure.target[entry],
        labels=graph.ilabels[arc],
        scores=(graph.scores[arc] + closure.scores[entry]).astype(np.float32),
        words=words,
    )


def _arcs_from_start(graph: Transducer, closure: _Closure, arcs: _Arcs) -> _Arcs:
    """The arcs of all states that the start reaches without a token, as arcs of the start."""
    own = closure.of(graph.start)
    own = own[closure.target[own] != graph.start]
    item, copied = _expand(closure.target[own], _splits(arcs.src, graph.num_states))
    entry = own[item]
    return _Arcs(
        src=np.full(len(copied), graph.start, dtype=np.int32),
        dst=arcs.dst[copied],
        labels=arcs.labels[copied],
        scores=(closure.scores[entry] + arcs.scores[copied]).astype(np.float32),
        words=closure.words.take(entry).followed_by(arcs.words.take(copied)),
    )


def _closure(graph: Transducer) -> _Closure:
    """All paths of epsilons; of several between the same two states the best."""
    epsilons = np.flatnonzero(graph.ilabels == 0)
    splits = _splits(graph.src[epsilons], graph.num_states)
    states = np.arange(graph.num_states, dtype=np.int32)
    nothing = _Words.of_labels(np.zeros(graph.num_states, dtype=np.int32))
    level = every = _Closure(states, states, np.zeros(graph.num_states), nothing)
    for _ in range(_MAX_EPSILONS):
        path, place = _expand(level.target, splits)
        if not len(path):
            break
        arc = epsilons[place]
        level = _Closure(
            level.origin[path],
            graph.dst[arc],
            level.scores[path] + graph.scores[arc],
            level.words.take(path).followed_by(_Words.of_labels(graph.olabels[arc])),
        )
        every = every.joined_with(level)
    else:
        raise DataError("the graph has a circle of steps without a token")
    every = every.take(np.lexsort((-every.scores, every.target, every.origin)))
    is_best = np.ones(len(every.origin), dtype=bool)
    is_best[1:] = (np.diff(every.origin) != 0) | (np.diff(every.target) != 0)
    return every.where(is_best)


def _splits(rows: npt.NDArray[np.integer], num_rows: int) -> _Int64:
    """Where the entries of each row begin, if `rows` is sorted."""
    return np.searchsorted(rows, np.arange(num_rows + 1))


def _expand(rows: npt.NDArray[np.integer], splits: _Int64) -> tuple[_Int64, _Int64]:
    """All entries of the given rows: (place in `rows`, place among the entries) of each."""
    lens = np.diff(splits)[rows]
    ends = np.cumsum(lens)
    item = np.repeat(np.arange(len(rows)), lens)
    place = np.arange(len(item)) + np.repeat(splits[rows] - (ends - lens), lens)
    return item, place


def _without_disambiguation(graph: Transducer, first_token: int, first_word: int) -> Transducer:
    """The graph with 0 for labels from `first_token` on, and for words from `first_word` on."""
    return replace(
        graph,
        ilabels=np.where(graph.ilabels >= first_token, 0, graph.ilabels),
        olabels=np.where(graph.olabels >= first_word, 0, graph.olabels),
    )


def _graph_of(start: int, arcs: _Arcs, final_scores: _Float64) -> DecodingGraph:
    """The part that can be reached, states renumbered in order, the start first."""
    num_states = len(final_scores)
    ranks = np.arange(num_states, dtype=np.int32)
    ranks[:start] += 1
    ranks[start] = 0
    arcs = arcs.take(np.lexsort((ranks[arcs.dst], arcs.labels, ranks[arcs.src])))
    src, dst = ranks[arcs.src], ranks[arcs.dst]
    splits = _splits(src, num_states)
    is_reached = np.zeros(num_states, dtype=bool)
    reached = np.zeros(1, dtype=np.int32)
    while len(reached):
        is_reached[reached] = True
        _, place = _expand(reached, splits)
        reached = np.unique(dst[place][~is_reached[dst[place]]])
    if not is_reached[src].all():
        kept = np.flatnonzero(is_reached[src])
        arcs, src, dst = arcs.take(kept), src[kept], dst[kept]
    numbers = np.cumsum(is_reached, dtype=np.int32) - 1
    by_rank = np.empty(num_states, dtype=np.int64)
    by_rank[ranks] = np.arange(num_states)
    states = by_rank[is_reached]
    return DecodingGraph(
        row_splits=_splits(numbers[src], len(states)),
        dst=numbers[dst],
        labels=arcs.labels,
        scores=arcs.scores,
        word_splits=arcs.words.splits,
        words=arcs.words.values,
        final_scores=final_scores[states].astype(np.float32),
    )
