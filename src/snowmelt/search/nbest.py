"""Which of many likely sequences is the best in the whole lattice? fast_beam_search_nbest and kin.

Paths are sampled from the lattice, and each distinct sequence of words (of tokens, on a graph
without words) is valued anew: by its best path, or by the sum over all its paths. The oracle takes
the sequence nearest to what was really said, a bound on what any such choice can reach.

Invariant: as every `SearchMethod`, except that a stream's memory grows with its length: these
searches are for whole utterances. What is asked for before the end is the one best path.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import kaldialign
import numpy as np

from snowmelt.core.errors import ConfigError
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.fast_beam_state import FastBeamState
from snowmelt.search.lattice import Lattice, compat_lattice, whole_lattice
from snowmelt.search.lattice_paths import SequenceTree, sampled_paths, sequence_values
from snowmelt.search.method import SearchResult
from snowmelt.search.scorer import IntArray, Scorer
from snowmelt.search.second_pass import SecondPass
from snowmelt.text.graph import DecodingGraph

__all__ = ["NbestSearch", "oracle"]

_Symbol = TypeVar("_Symbol", int, str)


@dataclass(frozen=True)
class NbestSearch(SecondPass[FastBeamSearch, FastBeamState]):
    """The best of sequences sampled from a lattice; see `search.method.SearchMethod`.

    Attributes:
        search: makes the lattice; it must keep it.
        num_paths: paths sampled an utterance.
        nbest_scale: what scores are multiplied by before paths are sampled: smaller values give
            more different sequences.
        sums_paths: a sequence is worth the sum over all its paths, as in nbest_LG; if False, its
            best path.

    Raises:
        ConfigError: a value cannot be used.
    """

    num_paths: int = 200
    nbest_scale: float = 0.5
    sums_paths: bool = False

    def __post_init__(self) -> None:
        if not self.search.keeps_lattice:
            raise ValueError("the search under an n-best search must keep its lattice")
        if self.num_paths < 1:
            raise ConfigError(f"num_paths must be at least 1, got {self.num_paths}")
        if not self.nbest_scale > 0:
            raise ConfigError(f"nbest_scale must be above 0, got {self.nbest_scale}")

    def n_best(self, scorer: Scorer, state: FastBeamState, *, is_final: bool) -> list[SearchResult]:
        """All sequences, the best first; before the end the best path alone."""
        if not is_final:
            # The end may choose another sequence: nothing is certain.
            return [replace(self.search.result(scorer, state, is_final=False), num_stable=0)]
        hypotheses = sorted(self.hypotheses(state), key=lambda hypothesis: -hypothesis.log_prob)
        return hypotheses or [self.search.empty_result()]

    def lattice(self, state: FastBeamState) -> Lattice:
        """The lattice of what was heard so far."""
        if self.search.icefall_compat:
            return compat_lattice(state.lattice, allow_partial=self.search.allow_partial)
        return whole_lattice(state.lattice, self.search.final_scores(state))

    def hypotheses(self, state: FastBeamState) -> list[SearchResult]:
        """The distinct sequences that were sampled, in the order they came.

        `log_prob` is what a sequence is worth; tokens and times are those of its best path or,
        where paths are summed, of the first sampled one. Empty if the lattice has no path, as may
        be in compat only.
        """
        lattice = self.lattice(state)
        paths = sampled_paths(lattice, self.num_paths, self.nbest_scale)
        if not len(paths):
            return []
        graph = self.search.graph
        symbol_splits, symbols = _symbols(lattice, graph)
        first_path: dict[tuple[int, ...], int] = {}
        for i, sequence in enumerate(_sequences(paths, symbol_splits, symbols)):
            first_path.setdefault(sequence, i)
        values, best_paths = sequence_values(
            lattice,
            symbol_splits,
            symbols,
            SequenceTree(list(first_path)),
            sums_paths=self.sums_paths,
        )
        if self.sums_paths:
            best_paths = paths[list(first_path.values())]
        first_frame = state.num_frames - sum(len(piece.sizes) for piece in state.lattice)
        return [
            _result(lattice, graph, path, float(value), first_frame)
            for path, value in zip(best_paths, values, strict=True)
        ]


def oracle(sequences: Sequence[Sequence[_Symbol]], reference: Sequence[_Symbol]) -> int:
    """Which sequence is nearest to a reference: its place.

    Of several with the fewest errors, as in the original, the one with the fewest substitutions,
    and of these the last.

    Args:
        sequences: tokens or words of the hypotheses of one utterance, at least one.
        reference: what was said, in the same symbols.
    """
    errors = []
    for sequence in sequences:
        counts = kaldialign.edit_distance(list(reference), list(sequence))
        errors.append((counts["total"], counts["sub"]))
    return max(i for i, error in enumerate(errors) if error == min(errors))


def _symbols(lattice: Lattice, graph: DecodingGraph | None) -> tuple[IntArray, IntArray]:
    """What the arcs of a lattice give out: words if the graph has any, otherwise tokens."""
    if graph is None or not graph.has_words:
        has_token = lattice.tokens != 0
        return np.cumsum(np.append(0, has_token)), lattice.tokens[has_token].astype(np.int64)
    lens = np.where(lattice.arcs >= 0, np.diff(graph.word_splits)[lattice.arcs], 0)
    splits = np.cumsum(np.append(0, lens))
    starts = graph.word_splits[np.maximum(lattice.arcs, 0)]
    places = np.arange(splits[-1]) + np.repeat(starts - splits[:-1], lens)
    return splits, graph.words[places].astype(np.int64)


def _sequences(
    paths: IntArray, symbol_splits: IntArray, symbols: IntArray
) -> list[tuple[int, ...]]:
    """What each path gives out."""
    splits, outputs = symbol_splits.tolist(), symbols.tolist()
    has_symbols = np.diff(symbol_splits) > 0
    return [
        tuple(
            symbol
            for k in path[has_symbols[path]].tolist()
            for symbol in outputs[splits[k] : splits[k + 1]]
        )
        for path in paths
    ]


def _result(
    lattice: Lattice, graph: DecodingGraph | None, path: IntArray, score: float, first_frame: int
) -> SearchResult:
    takes_token = np.flatnonzero(lattice.tokens[path])
    arcs = path[takes_token]
    words: list[int] = []
    word_timestamps: list[int] = []
    if graph is not None and graph.has_words:
        for frame, arc in enumerate(lattice.arcs[path].tolist(), start=first_frame):
            if arc >= 0:
                own = graph.words[graph.word_splits[arc] : graph.word_splits[arc + 1]].tolist()
                words += own
                word_timestamps += [frame] * len(own)
    has_words = graph is not None and graph.has_words
    return SearchResult(
        tuple(lattice.tokens[arcs].tolist()),
        tuple((first_frame + takes_token).tolist()),
        tuple(lattice.token_logprobs[arcs].tolist()),
        tuple(words) if has_words else None,
        score,
        len(arcs),
        tuple(word_timestamps) if has_words else None,
    )
