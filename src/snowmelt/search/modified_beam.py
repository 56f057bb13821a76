"""Which few token sequences are the most probable, if a frame emits at most one token?

After every frame the `beam` best hypotheses are kept; those with the same tokens are one, whatever
frames the tokens lie on. The result is the best in log-probability per token.

Invariant: see `search.method`; log-probabilities are float32 (those of the scorer's type), as in
the original.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py,
modified_beam_search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from snowmelt.search.beam_advance import Beams, advance_beams, empty_beams
from snowmelt.search.context_graph import ContextGraph, build_context_graph
from snowmelt.search.graph_contexts import DecoderTable, bits_per_token, context_code
from snowmelt.search.lm import LanguageModel
from snowmelt.search.lm_hypotheses import LmRows, join_rows, next_rows, start_rows, take_rows
from snowmelt.search.method import (
    SearchResult,
    check_step,
    num_common,
    ranked_per_token,
    skipped_ids,
    token_logprobs,
)
from snowmelt.search.prefix_tree import Ints, Tree, empty_tree, join_trees, reserve, split_stable
from snowmelt.search.scorer import FloatArray, IntArray, Scorer, initial_context

__all__ = ["BeamState", "ModifiedBeamSearch"]

_NO_PHRASES = build_context_graph([], [])


class BeamState(NamedTuple):
    """One stream between two steps: its K hypotheses.

    Attributes:
        num_frames: encoder frames searched so far.
        stable: (tokens, timestamps, logprobs) that begin every hypothesis and stay.
        tree: what comes after them.
        nodes: (K,) last records of the hypotheses, -1 for none in the tree.
        log_probs: (K,) their scores, hotwords included.
        codes: (K,) their contexts, see `graph_contexts`.
        decoder_proj: (K, J) prediction network outputs of these; None before the first step.
        num_tokens: (K,) their lengths.
        bonus_states: (K,) states in the graph of hotwords.
        lm: what the language model says of them; None without one, and before the first step.
    """

    num_frames: int
    stable: tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]
    tree: Tree
    nodes: Ints
    log_probs: FloatArray
    codes: IntArray
    decoder_proj: FloatArray | None
    num_tokens: Ints
    bonus_states: Ints
    lm: LmRows | None


@dataclass(frozen=True)
class ModifiedBeamSearch:
    """See `search.method.SearchMethod`.

    Attributes:
        beam: hypotheses kept a stream.
        blank_penalty: subtracted from the logit of blank.
        temperature: logits are divided by it before they become probabilities.
        context_graph: phrases that earn a bonus; None for none.
        icefall_compat: as the original: <unk> is emitted, and hotwords and the language model act
            on the next frame only.
        lm: adds its scores, scales included, to those of the tokens; None for none.
        lm_only_ranks: as the original's modified_beam_search_ngram_rescoring: `lm` takes part in
            the choice of the beam, by the tokens before the frame, and in no log-probability;
            only with `icefall_compat`.
    """

    beam: int = 4
    blank_penalty: float = 0.0
    temperature: float = 1.0
    context_graph: ContextGraph | None = None
    icefall_compat: bool = False
    lm: LanguageModel[Any] | None = None
    lm_only_ranks: bool = False

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1, got {self.beam}")
        if self.lm_only_ranks and not self.icefall_compat:
            raise ValueError("lm_only_ranks is the original's: it needs icefall_compat")

    def init_state(self, scorer: Scorer) -> BeamState:
        """State of a stream that has heard nothing."""
        return _fresh_state(context_code(initial_context(scorer)), None, num_frames=0)

    def step(
        self,
        scorer: Scorer,
        encoder_proj: FloatArray,
        lens: IntArray,
        states: Sequence[BeamState],
    ) -> list[BeamState]:
        """Advance N streams; see `SearchMethod.step`."""
        check_step(encoder_proj, lens, states)
        if not states or not lens.any():
            return list(states)
        table = _decoder_table(scorer, states)
        tree, offsets = join_trees([state.tree for state in states])
        tree_size = len(tree.parents)
        beams = self._beams(states, offsets, table, encoder_proj.dtype)
        starts = np.array([state.num_frames for state in states], dtype=np.int64)
        skipped = skipped_ids(scorer, icefall_compat=self.icefall_compat)
        bits = bits_per_token(scorer.context_size)
        slots = np.arange(self.beam)
        lm_rows = self._joined_lm_rows(states, beams, skipped)
        no_lm_scores = np.zeros((0, 0), encoder_proj.dtype)
        for t in range(int(lens.max())):
            is_live = lens > t
            streams = np.flatnonzero(is_live)
            rows = (slots < beams.counts[:, None]) & is_live[:, None]  # (N, K)
            logprobs = token_logprobs(
                scorer,
                encoder_proj[np.nonzero(rows)[0], t],
                table.decoder_proj(beams.rows[rows]),
                blank_penalty=self.blank_penalty,
                temperature=self.temperature,
            )
            lm_scores = no_lm_scores
            if lm_rows is not None:
                own = beams.lm_origins[rows]
                lm_scores = lm_rows.scores[own]
                if self.lm_only_ranks:
                    # The totals are in the ranking only: the kernel takes them away again.
                    beams.log_probs[rows] += lm_rows.totals[own]
                    lm_scores = np.repeat(-lm_rows.totals[own, None], logprobs.shape[1], axis=1)
            tree = reserve(tree, tree_size + self.beam * len(streams))
            tree_size = advance_beams(
                beams,
                streams,
                starts[streams] + t,
                logprobs,
                skipped,
                bits,
                (1 << (bits * scorer.context_size)) - 1,
                tree,
                tree_size,
                (self.context_graph or _NO_PHRASES).tables,
                lm_scores,
                self.icefall_compat,
            )
            is_new = (slots < beams.counts[:, None]) & (beams.rows < 0)
            if is_new.any():
                beams.rows[is_new] = table.rows(beams.codes[is_new])
            if lm_rows is not None:
                lm_rows = self._next_lm_rows(lm_rows, beams, tree, skipped)
        visits = np.zeros(tree_size, np.int32)
        return [
            _new_state(state, int(num_frames), n, beams, tree, table, lm_rows, visits)
            for n, (state, num_frames) in enumerate(zip(states, lens, strict=True))
        ]

    def n_best(self, scorer: Scorer, state: BeamState, *, is_final: bool) -> list[SearchResult]:
        """All hypotheses, the best first; arguments as `SearchMethod.result`."""
        log_probs = self._log_probs(state, is_final=is_final)
        paths = [_path(state, k) for k in range(len(log_probs))]
        num_stable = num_common([tokens for tokens, _, _ in paths])
        return [
            SearchResult(*paths[k], words=None, log_prob=float(log_probs[k]), num_stable=num_stable)
            for k in ranked_per_token(log_probs, state.num_tokens, scorer.context_size)
        ]

    def result(self, scorer: Scorer, state: BeamState, *, is_final: bool) -> SearchResult:
        """The best hypothesis so far; see `SearchMethod.result`."""
        return self.n_best(scorer, state, is_final=is_final)[0]

    def clear_result(self, scorer: Scorer, state: BeamState, *, keep_history: bool) -> BeamState:
        """The same stream with an empty result; the best hypothesis goes on alone."""
        if not keep_history:
            return self.init_state(scorer)._replace(num_frames=state.num_frames)
        log_probs = self._log_probs(state, is_final=True)
        best = ranked_per_token(log_probs, state.num_tokens, scorer.context_size)[0]
        decoder_proj = None if state.decoder_proj is None else state.decoder_proj[best][None]
        fresh = _fresh_state(int(state.codes[best]), decoder_proj, num_frames=state.num_frames)
        if state.lm is None:
            return fresh
        lm_rows = take_rows(state.lm, np.array([best]))
        return fresh._replace(lm=lm_rows._replace(totals=np.zeros_like(lm_rows.totals)))

    def _log_probs(self, state: BeamState, *, is_final: bool) -> FloatArray:
        if self.context_graph is None or not is_final:
            return state.log_probs
        bonuses = self.context_graph.tables.final_scores[state.bonus_states]
        return state.log_probs + bonuses.astype(state.log_probs.dtype)

    def _beams(
        self,
        states: Sequence[BeamState],
        offsets: Sequence[int],
        table: DecoderTable,
        dtype: np.dtype[np.float32],
    ) -> Beams:
        beams = empty_beams(len(states), self.beam, dtype)
        for n, (state, offset) in enumerate(zip(states, offsets, strict=True)):
            count = len(state.nodes)
            beams.counts[n] = count
            beams.log_probs[n, :count] = state.log_probs
            beams.nodes[n, :count] = np.where(state.nodes < 0, -1, state.nodes + offset)
            beams.num_tokens[n, :count] = state.num_tokens
            beams.codes[n, :count] = state.codes
            beams.rows[n, :count] = table.rows(state.codes)
            beams.bonus_states[n, :count] = state.bonus_states
        return beams

    def _joined_lm_rows(
        self, states: Sequence[BeamState], beams: Beams, skipped: IntArray
    ) -> LmRows | None:
        """The rows of all hypotheses, whose places `beams` receives; None without a model."""
        if self.lm is None:
            return None
        lm = self.lm
        _number(beams)
        return join_rows(
            [start_rows(lm, skipped) if state.lm is None else state.lm for state in states]
        )

    def _next_lm_rows(self, lm_rows: LmRows, beams: Beams, tree: Tree, skipped: IntArray) -> LmRows:
        assert self.lm is not None
        is_used = np.arange(self.beam) < beams.counts[:, None]
        origins, tokens = beams.lm_origins[is_used], tree.tokens[beams.nodes[is_used]]
        if len(origins) == len(lm_rows.states) and (origins == np.arange(len(origins))).all():
            return lm_rows  # blanks only, and no change of places
        _number(beams)
        return next_rows(self.lm, lm_rows, origins, tokens, skipped)


def _number(beams: Beams) -> None:
    """Hypotheses are numbered stream by stream."""
    is_used = np.arange(beams.lm_origins.shape[1]) < beams.counts[:, None]
    beams.lm_origins[is_used] = np.arange(int(is_used.sum()))


def _fresh_state(code: int, decoder_proj: FloatArray | None, *, num_frames: int) -> BeamState:
    zero = np.zeros(1, np.int32)
    return BeamState(
        num_frames=num_frames,
        stable=((), (), ()),
        tree=empty_tree(),
        nodes=zero - 1,
        log_probs=np.zeros(1, np.float32),
        codes=np.array([code], dtype=np.int64),
        decoder_proj=decoder_proj,
        num_tokens=zero,
        bonus_states=zero,
        lm=None,
    )


def _new_state(
    state: BeamState,
    num_frames: int,
    n: int,
    beams: Beams,
    tree: Tree,
    table: DecoderTable,
    lm_rows: LmRows | None,
    visits: Ints,
) -> BeamState:
    """Stream n's state after a step; all arrays are its own, not views of the batch's."""
    if not num_frames:
        return state
    own = slice(0, int(beams.counts[n]))
    shared, rest, nodes = split_stable(tree, beams.nodes[n, own], visits)
    tokens, frames, logprobs = state.stable
    return BeamState(
        num_frames=state.num_frames + num_frames,
        stable=(
            tokens + tuple(shared.tokens.tolist()),
            frames + tuple(shared.frames.tolist()),
            logprobs + tuple(shared.logprobs.tolist()),
        ),
        tree=rest,
        nodes=nodes,
        log_probs=beams.log_probs[n, own].copy(),
        codes=beams.codes[n, own].copy(),
        decoder_proj=table.decoder_proj(beams.rows[n, own]),
        num_tokens=beams.num_tokens[n, own].copy(),
        bonus_states=beams.bonus_states[n, own].copy(),
        lm=None if lm_rows is None else take_rows(lm_rows, beams.lm_origins[n, own]),
    )


def _decoder_table(scorer: Scorer, states: Sequence[BeamState]) -> DecoderTable:
    """With what the states bring."""
    table = DecoderTable(scorer)
    for state in states:
        if state.decoder_proj is not None:
            table.add(state.codes.tolist(), state.decoder_proj)
    return table


def _path(state: BeamState, k: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Tokens, frames and log-probabilities of a hypothesis."""
    records = []
    node = int(state.nodes[k])
    while node >= 0:
        records.append(node)
        node = int(state.tree.parents[node])
    records.reverse()
    tokens, frames, logprobs = state.stable
    return (
        tokens + tuple(state.tree.tokens[records].tolist()),
        frames + tuple(state.tree.frames[records].tolist()),
        logprobs + tuple(state.tree.logprobs[records].tolist()),
    )
