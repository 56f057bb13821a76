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
    is_token = graph.ilabels > 0
    has_tokens = np.zeros(graph.num_states, dtype=bool)
    has_tokens[graph.src[is_token]] = True
    closure = closure.where((has_tokens | np.isfinite(graph.final_scores))[closure.target])

    # Arcs with a token, each once for every target in the closure of its own target.
    arcs = np.flatnonzero(is_token)
    splits = closure.splits(graph.num_states)
    item, entry = _expand(graph.dst[arcs], splits)
    arc = arcs[item]
    expanded = _Arcs(
        src=graph.src[arc],
        dst=closure.target[entry],
        labels=graph.ilabels[arc],
        scores=graph.scores[arc] + closure.scores[entry],
        words=_Words.of_labels(graph.olabels[arc]).followed_by(closure.words.take(entry)),
    )

    # The start has the arcs and the end of all states it reaches without a token.
    own = np.arange(splits[graph.start], splits[graph.start + 1])
    final_scores = graph.final_scores.astype(np.float64)
    # Words before such an end would stand on no arc; `#n` follows a token, so there are none.
    ends = closure.scores[own] + final_scores[closure.target[own]]
    final_scores[graph.start] = ends.max(initial=-np.inf)
    others = own[closure.target[own] != graph.start]
    item, copied = _expand(
        closure.target[others], np.searchsorted(expanded.src, np.arange(graph.num_states + 1))
    )
    entry = others[item]
    from_start = _Arcs(
        src=np.full(len(copied), graph.start),
        dst=expanded.dst[copied],
        labels=expanded.labels[copied],
        scores=closure.scores[entry] + expanded.scores[copied],
        words=closure.words.take(entry).followed_by(expanded.words.take(copied)),
    )
    return _graph_of(graph.start, expanded.joined_with(from_start), final_scores)


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
    src: _Int64
    dst: _Int64
    labels: _Int32
    scores: _Float64
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

    origin: _Int64
    target: _Int64
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

    def splits(self, num_states: int) -> _Int64:
        return np.searchsorted(self.origin, np.arange(num_states + 1))


def _closure(graph: Transducer) -> _Closure:
    """All paths of epsilons; of several between the same two states the best."""
    epsilons = np.flatnonzero(graph.ilabels == 0)
    splits = np.searchsorted(graph.src[epsilons], np.arange(graph.num_states + 1))
    states = np.arange(graph.num_states)
    nothing = _Words(np.zeros(graph.num_states + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    level = _Closure(states, states, np.zeros(graph.num_states), nothing)
    levels = [level]
    while len(level.origin):
        if len(levels) > _MAX_EPSILONS:
            raise DataError("the graph has a circle of steps without a token")
        path, place = _expand(level.target, splits)
        arc = epsilons[place]
        level = _Closure(
            level.origin[path],
            graph.dst[arc].astype(np.int64),
            level.scores[path] + graph.scores[arc],
            level.words.take(path).followed_by(_Words.of_labels(graph.olabels[arc])),
        )
        levels.append(level)
    words = levels[0].words
    for level in levels[1:]:
        words = words.joined_with(level.words)
    every = _Closure(
        np.concatenate([level.origin for level in levels]),
        np.concatenate([level.target for level in levels]),
        np.concatenate([level.scores for level in levels]),
        words,
    )
    every = every.take(np.lexsort((-every.scores, every.target, every.origin)))
    is_best = np.ones(len(every.origin), dtype=bool)
    is_best[1:] = (np.diff(every.origin) != 0) | (np.diff(every.target) != 0)
    return every.where(is_best)


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
    arcs = arcs.take(np.lexsort((arcs.dst, arcs.labels, arcs.src)))
    splits = np.searchsorted(arcs.src, np.arange(len(final_scores) + 1))
    is_reached = np.zeros(len(final_scores), dtype=bool)
    reached = np.array([start])
    while len(reached):
        is_reached[reached] = True
        _, place = _expand(reached, splits)
        reached = np.unique(arcs.dst[place][~is_reached[arcs.dst[place]]])
    states = np.flatnonzero(is_reached)
    states = np.concatenate([[start], states[states != start]])
    numbers = np.full(len(final_scores), -1, dtype=np.int64)
    numbers[states] = np.arange(len(states))
    _, place = _expand(states, splits)
    kept = arcs.take(place)
    return DecodingGraph(
        row_splits=np.searchsorted(numbers[kept.src], np.arange(len(states) + 1)),
        dst=numbers[kept.dst].astype(np.int32),
        labels=kept.labels.astype(np.int32),
        scores=kept.scores.astype(np.float32),
        word_splits=kept.words.splits,
        words=kept.words.values.astype(np.int32),
        final_scores=final_scores[states].astype(np.float32),
    )
