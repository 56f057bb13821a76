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
from typing import NamedTuple

import numpy as np

from snowmelt.search.beam_advance import Beams, advance_beams, empty_beams
from snowmelt.search.context_graph import ContextGraph, build_context_graph
from snowmelt.search.graph_contexts import DecoderTable, bits_per_token, context_code
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


@dataclass(frozen=True)
class ModifiedBeamSearch:
    """See `search.method.SearchMethod`.

    Attributes:
        beam: hypotheses kept a stream.
        blank_penalty: subtracted from the logit of blank.
        temperature: logits are divided by it before they become probabilities.
        context_graph: phrases that earn a bonus; None for none.
        icefall_compat: as the original: <unk> is emitted, and a bonus acts on the next frame only.
    """

    beam: int = 4
    blank_penalty: float = 0.0
    temperature: float = 1.0
    context_graph: ContextGraph | None = None
    icefall_compat: bool = False

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1, got {self.beam}")

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
                self.icefall_compat,
            )
            is_new = (slots < beams.counts[:, None]) & (beams.rows < 0)
            if is_new.any():
                beams.rows[is_new] = table.rows(beams.codes[is_new])
        visits = np.zeros(tree_size, np.int32)
        return [
            _new_state(state, int(num_frames), n, beams, tree, table, visits)
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
        return _fresh_state(int(state.codes[best]), decoder_proj, num_frames=state.num_frames)

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
    )


def _new_state(
    state: BeamState,
    num_frames: int,
    n: int,
    beams: Beams,
    tree: Tree,
    table: DecoderTable,
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
