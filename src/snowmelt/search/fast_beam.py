"""Which way through a graph explains the sound best? fast_beam_search, one best.

Token passing: several histories are followed at once, each a pair of the last tokens and a state of
the graph. On the trivial graph every token may follow every other; an LG graph holds the
words and how likely they follow one another.

Invariant: as every `SearchMethod`; the memory of a stream does not grow with its length, but for
the result itself.

Source: arXiv 2211.00484; icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import ConfigError
from snowmelt.search.fast_beam_state import Emissions, FastBeamState, Stacked, chain, joined
from snowmelt.search.graph_advance import (
    FINAL_ARC,
    Active,
    GraphArrays,
    KeptArcs,
    advance,
    distinct_contexts,
)
from snowmelt.search.graph_contexts import (
    DecoderTable,
    bits_per_token,
    context_code,
    context_tokens,
)
from snowmelt.search.graph_history import ROOT, History, empty_history, pruned, with_emissions
from snowmelt.search.lattice import stream_frames
from snowmelt.search.method import SearchResult, check_step, token_logprobs
from snowmelt.search.scorer import FloatArray, IntArray, Scorer, initial_context
from snowmelt.text.graph import DecodingGraph, trivial_graph

__all__ = ["FastBeamSearch"]

_BoolArray = npt.NDArray[np.bool_]

# Emissions of a batch after which those that lead nowhere are thrown away inside a step.
_PRUNE_AT: Final = 50_000


@dataclass(frozen=True)
class FastBeamSearch:
    """Token passing on a graph; see `search.method.SearchMethod`.

    Attributes:
        graph: what may follow what; None for the trivial graph.
        beam: largest distance to the best state, in nats.
        max_contexts: most contexts followed, 0 for no limit.
        max_states: most pairs of context and graph state followed, 0 for no limit.
        temperature: logits are divided by it before they become probabilities.
        blank_penalty: subtracted from the logit of blank.
        ilme_scale: share of the internal language model (the joiner without sound) that is
            subtracted.
        allow_partial: compat only: a result where the graph cannot end, too; without compat there
            always is one.
        keeps_lattice: keep what a search over whole lattices needs; memory grows with the sound.
        icefall_compat: as the original: the last frame emits nothing and the result is empty where
            no sentence can end there, the score of ending is left out, ends take part in the
            pruning, the history begins with blanks only, <unk> is emitted.

    Raises:
        ConfigError: a value cannot be used.
    """

    graph: DecodingGraph | None = None
    beam: float = 20.0
    max_contexts: int = 8
    max_states: int = 64
    temperature: float = 1.0
    blank_penalty: float = 0.0
    ilme_scale: float = 0.0
    allow_partial: bool = False
    keeps_lattice: bool = False
    icefall_compat: bool = False
    _arrays: GraphArrays | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.beam > 0:
            raise ConfigError(f"beam must be above 0, got {self.beam}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}")
        for name in ("max_contexts", "max_states"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} must not be below 0, got {getattr(self, name)}", "0 means no limit"
                )
        if self.graph is not None:
            if self.graph.has_epsilons and not self.icefall_compat:
                # The original lets such an arc take a frame as blank does: then how long a pause
                # is decides which words may follow it.
                raise ConfigError(
                    "the graph has arcs that take no token", "remove its epsilons before"
                )
            object.__setattr__(self, "_arrays", _graph_arrays(self.graph))

    def init_state(self, scorer: Scorer) -> FastBeamState:
        """State of a stream that has heard nothing."""
        context = initial_context(scorer)
        if self.icefall_compat:
            context = (scorer.blank_id,) * scorer.context_size
        return self._start(context, num_frames=0)

    def step(
        self,
        scorer: Scorer,
        encoder_proj: FloatArray,
        lens: IntArray,
        states: Sequence[FastBeamState],
    ) -> list[FastBeamState]:
        """Advance N streams; see `SearchMethod.step`."""
        check_step(encoder_proj, lens, states)
        if not states or not lens.any():
            return list(states)
        batch = _Batch(self, scorer, states)
        for t in range(int(lens.max())):
            batch.advance(encoder_proj[:, t], lens > t)
        return batch.states()

    def result(self, scorer: Scorer, state: FastBeamState, *, is_final: bool) -> SearchResult:
        """Best path so far; see `SearchMethod.result`."""
        num_stable = len(state.committed.tokens)
        if self.icefall_compat:
            if state.ended is None:
                return self.empty_result()
            node, score = state.ended
            # The next partial result may be empty: nothing is certain before the end.
            num_stable = num_stable if is_final else 0
        else:
            scores = state.scores + self.final_scores(state) if is_final else state.scores
            best = int(scores.argmax())
            node, score = int(state.nodes[best]), float(scores[best])
        path = joined(state.committed, self.emissions(state.history, chain(state.history, node)))
        return SearchResult(
            path.tokens,
            path.timestamps,
            path.token_logprobs,
            self._words(path.words),
            score,
            len(path.tokens) if is_final else num_stable,
            self._words(path.word_timestamps),
        )

    def clear_result(
        self, scorer: Scorer, state: FastBeamState, *, keep_history: bool
    ) -> FastBeamState:
        """A new segment; see `SearchMethod.clear_result`. The graph begins anew."""
        if not keep_history:
            return self.init_state(scorer)._replace(num_frames=state.num_frames)
        best = int(state.scores.argmax())
        context = context_tokens(state.contexts[[best]], scorer.context_size)[0]
        return self._start(tuple(context.tolist()), num_frames=state.num_frames)

    def empty_result(self) -> SearchResult:
        """What the original gives where nothing can end."""
        return SearchResult((), (), (), self._words(()), 0.0, 0, self._words(()))

    def final_scores(self, state: FastBeamState) -> FloatArray:
        """(A,) what ending now adds to the score of each active state.

        Where none can end each may: cut-off speech has a result, too.
        """
        if self._arrays is None:
            return np.zeros(len(state.scores), dtype=np.float32)
        scores: FloatArray = self._arrays.final_scores[state.graph_states]
        return scores if np.isfinite(scores).any() else np.zeros_like(scores)

    def graph_arrays(self, vocab_size: int) -> GraphArrays:
        """The graph for a model of V tokens, blank included.

        Raises:
            ConfigError: the graph has tokens that the model has not.
        """
        if self._arrays is None:
            return _trivial_arrays(vocab_size)
        largest = int(self._arrays.labels.max(initial=0))
        if largest >= vocab_size:
            raise ConfigError(
                f"the graph has a token {largest}, the model only those below {vocab_size}",
                "the graph must be made with the model's own vocabulary",
            )
        return self._arrays

    def _start(self, context: Sequence[int], num_frames: int) -> FastBeamState:
        return FastBeamState(
            contexts=np.array([context_code(context)], dtype=np.int64),
            graph_states=np.zeros(1, dtype=np.int32),
            scores=np.zeros(1, dtype=np.float64),
            nodes=np.full(1, ROOT, dtype=np.int32),
            history=empty_history(),
            num_frames=num_frames,
        )

    def _words(self, words: tuple[int, ...]) -> tuple[int, ...] | None:
        return words if self.graph is not None and self.graph.has_words else None

    def emissions(self, history: History, nodes: IntArray) -> Emissions:
        """What the emissions `nodes` gave out, in their order."""
        words: list[int] = []
        word_timestamps: list[int] = []
        if self.graph is not None and self.graph.has_words:
            splits = self.graph.word_splits
            for arc, frame in zip(
                history.arcs[nodes].tolist(), history.frames[nodes].tolist(), strict=True
            ):
                own = self.graph.words[splits[arc] : splits[arc + 1]].tolist()
                words += own
                word_timestamps += [frame] * len(own)
        nodes = nodes[history.tokens[nodes] != 0]
        return Emissions(
            tuple(history.tokens[nodes].tolist()),
            tuple(history.frames[nodes].tolist()),
            tuple(history.logprobs[nodes].tolist()),
            tuple(words),
            tuple(word_timestamps),
        )


class _Batch:
    """The streams of one step, side by side."""

    def __init__(
        self, method: FastBeamSearch, scorer: Scorer, states: Sequence[FastBeamState]
    ) -> None:
        self._method = method
        self._scorer = scorer
        self._old = states
        self._num_frames = np.array([state.num_frames for state in states], dtype=np.int64)
        self._committed = [state.committed for state in states]
        self._frames: list[tuple[KeptArcs, IntArray]] = []
        self._graph: GraphArrays | None = None
        self._bits = bits_per_token(scorer.context_size)
        self._mask = (1 << self._bits * (scorer.context_size - 1)) - 1

        stacked = Stacked.of(states)
        self._active, self._nodes, self._history = stacked.active, stacked.nodes, stacked.history
        self._ended = stacked.ended
        self._size = len(self._history.parents)
        self._table = DecoderTable(scorer)
        for state in states:
            if state.decoder_proj is not None:
                self._table.add(np.unique(state.contexts).tolist(), state.decoder_proj)

    def advance(self, encoder_proj: FloatArray, is_live: _BoolArray) -> None:
        """One frame (N, J) of the streams that are live."""
        method, scorer, before = self._method, self._scorer, self._active
        rows, codes, streams = distinct_contexts(before.splits, before.contexts, is_live)
        decoder_proj = self._table.decoder_proj(self._table.rows(codes))  # (R, J)
        logprobs, by_token = self._logprobs(encoder_proj[streams], decoder_proj)
        if self._graph is None:
            self._graph = method.graph_arrays(logprobs.shape[1])
        self._active, kept = advance(
            self._graph,
            before,
            is_live,
            rows,
            logprobs,
            by_token,
            scorer.blank_id,
            method.beam,
            method.max_states,
            method.max_contexts,
            self._bits,
            self._mask,
            method.icefall_compat,
            method.icefall_compat or method.keeps_lattice,
        )
        if method.icefall_compat:
            self._note_ends(before, kept, is_live)
        if method.keeps_lattice:
            self._frames.append((kept, np.diff(self._active.splits)))
        frames = np.repeat(self._num_frames, np.diff(self._active.splits))
        self._history, self._size, self._nodes = with_emissions(
            self._history,
            self._size,
            self._graph,
            self._nodes,
            self._active.sources,
            self._active.arcs,
            rows,
            by_token,
            frames,
        )
        self._num_frames += is_live
        if self._size > _PRUNE_AT:
            self._prune()

    def states(self) -> list[FastBeamState]:
        """The streams, each on its own again."""
        own_history = self._prune()
        splits = self._active.splits
        everyone = np.ones(len(self._old), dtype=np.bool_)
        _, codes, streams = distinct_contexts(splits, self._active.contexts, everyone)
        decoder_proj = self._table.decoder_proj(self._table.rows(codes))
        states = []
        stacked = Stacked(self._active, self._nodes, self._history, self._ended)
        for n, old in enumerate(self._old):
            frames = [
                frame for frame in self._frames if frame[0].splits[n] < frame[0].splits[n + 1]
            ]
            states.append(
                stacked.stream(n, own_history[n], own_history[n + 1])._replace(
                    committed=self._committed[n],
                    decoder_proj=decoder_proj[streams == n],
                    num_frames=int(self._num_frames[n]),
                    lattice=(*old.lattice, stream_frames(n, frames)) if frames else old.lattice,
                )
            )
        return states

    def _logprobs(
        self, encoder_proj: FloatArray, decoder_proj: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """(R, V) what is searched with, and (R, V) what is told of a token's probability."""
        method, scorer = self._method, self._scorer
        if method.ilme_scale:
            silence = np.zeros_like(encoder_proj)
            encoder_proj = np.concatenate([encoder_proj, silence])
            decoder_proj = np.concatenate([decoder_proj, decoder_proj])
        by_token = token_logprobs(
            scorer,
            encoder_proj,
            decoder_proj,
            blank_penalty=method.blank_penalty,
            temperature=method.temperature,
        )
        logprobs = by_token
        if method.ilme_scale:
            by_token, internal = np.split(by_token, 2)
            logprobs = by_token - np.float32(method.ilme_scale) * internal
        if scorer.unk_id is not None and not method.icefall_compat:
            # As good as blank: nothing is emitted, and what was more probable counts.
            if logprobs is by_token:
                logprobs = logprobs.copy()
            blank, unk = scorer.blank_id, scorer.unk_id
            logprobs[:, blank] = np.maximum(logprobs[:, blank], logprobs[:, unk])
            logprobs[:, unk] = -np.inf
        return logprobs, by_token

    def _note_ends(self, before: Active, kept: KeptArcs, is_live: _BoolArray) -> None:
        """Compat: who could have ended the utterance with this frame?"""
        for n in np.flatnonzero(is_live):
            part = slice(kept.splits[n], kept.splits[n + 1])
            can_end = kept.arcs[part] == FINAL_ARC
            if self._method.allow_partial and not can_end.any():
                can_end = np.ones_like(can_end)
            sources = before.splits[n] + kept.sources[part][can_end]
            self._ended[n] = None
            if len(sources):
                best = sources[before.scores[sources].argmax()]
                self._ended[n] = (int(self._nodes[best]), float(before.scores[best]))

    def _prune(self) -> IntArray:
        """Commit what is certain, forget what is given up.

        Returns:
            (N + 1,) int64; emissions of stream n that are left.
        """
        splits = self._active.splits
        # What could have ended counts as one more state: it may still be asked for.
        leaves = [
            np.append(self._nodes[splits[n] : splits[n + 1]], [] if end is None else [end[0]])
            for n, end in enumerate(self._ended)
        ]
        leaf_splits = np.cumsum([0] + [len(own) for own in leaves])
        committed_splits, committed, kept_splits, kept, parents, new_leaves = pruned(
            self._history.parents[: self._size],
            leaf_splits,
            np.concatenate(leaves).astype(np.int32),
        )
        for n, end in enumerate(self._ended):
            nodes = committed[committed_splits[n] : committed_splits[n + 1]]
            if len(nodes):
                self._committed[n] = joined(
                    self._committed[n], self._method.emissions(self._history, nodes)
                )
            own = new_leaves[leaf_splits[n] : leaf_splits[n + 1]]
            if end is not None:
                self._ended[n] = (int(own[-1]), end[1])
            self._nodes[splits[n] : splits[n + 1]] = own[: splits[n + 1] - splits[n]]
        self._history = History(parents, *(array[kept] for array in self._history[1:]))
        self._size = len(kept)
        return kept_splits


def _graph_arrays(graph: DecodingGraph) -> GraphArrays:
    sources = np.repeat(np.arange(graph.num_states), np.diff(graph.row_splits))
    order = np.lexsort((graph.dst, graph.labels, sources))
    arcs = np.stack([sources[order], graph.labels[order], graph.dst[order]])
    is_same = (np.diff(arcs, axis=1) == 0).all(axis=0)
    return GraphArrays(
        graph.row_splits,
        graph.dst,
        graph.labels,
        graph.scores,
        graph.final_scores,
        np.diff(graph.word_splits) > 0,
        not graph.has_epsilons and not is_same.any(),
    )


@lru_cache(maxsize=4)
def _trivial_arrays(vocab_size: int) -> GraphArrays:
    return _graph_arrays(trivial_graph(vocab_size))
