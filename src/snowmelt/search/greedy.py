"""Which tokens does an utterance hold, if the best token is taken at every frame?

The same function serves whole utterances and chunks: a state goes in, a new state comes out, and
the state is the result so far.

Invariant: a stream's result depends on its own frames only, not on the other streams of the
batch nor on how its frames were cut into steps.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py, greedy_search and
greedy_search_batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from snowmelt.search.method import SearchResult, check_step, skipped_ids
from snowmelt.search.scorer import FloatArray, IntArray, Scorer, initial_context

__all__ = ["GreedySearch", "GreedyState"]

# Symbols after which the original gives an utterance up.
_COMPAT_LIMIT: Final = 1000

# Token id, frame, log-probability, logit.
_Emission = tuple[int, int, float, float]


class GreedyState(NamedTuple):
    """One stream between two steps: the history it goes on from, and its result so far.

    Attributes:
        context: the last context_size token ids, oldest first.
        decoder_proj: (J,) float32, prediction network output for `context`; None before the
            first step.
        num_frames: encoder frames searched so far.
        tokens: emitted token ids, in order.
        timestamps: encoder frame at which each token was emitted, counted from the stream's start.
        token_logprobs: natural log of the probability of each token on its frame, after the
            blank penalty.
        token_logits: its logit, unnormalised.
    """

    context: tuple[int, ...]
    decoder_proj: FloatArray | None
    num_frames: int = 0
    tokens: tuple[int, ...] = ()
    timestamps: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    token_logits: tuple[float, ...] = ()


@dataclass(frozen=True)
class GreedySearch:
    """Takes the best token at every frame; see `search.method.SearchMethod`.

    Attributes:
        max_sym_per_frame: most tokens one encoder frame may emit, at least 1.
        blank_penalty: subtracted from the logit of blank: above 0 gives fewer deletions and more
            insertions.
        icefall_compat: as the original: <unk> is emitted, and an utterance ends silently after
            1000 tokens where one frame may emit several.
    """

    max_sym_per_frame: int = 1
    blank_penalty: float = 0.0
    icefall_compat: bool = False

    def __post_init__(self) -> None:
        if self.max_sym_per_frame < 1:
            raise ValueError(f"max_sym_per_frame must be at least 1, got {self.max_sym_per_frame}")

    def init_state(self, scorer: Scorer) -> GreedyState:
        """State of a stream that has heard nothing."""
        return GreedyState(context=initial_context(scorer), decoder_proj=None)

    def step(
        self,
        scorer: Scorer,
        encoder_proj: FloatArray,
        lens: IntArray,
        states: Sequence[GreedyState],
    ) -> list[GreedyState]:
        """Advance N streams; see `SearchMethod.step`."""
        check_step(encoder_proj, lens, states)
        if not states:
            return []
        skipped = skipped_ids(scorer, icefall_compat=self.icefall_compat)
        # The original's batched search, for one symbol a frame, has no limit.
        limit = _COMPAT_LIMIT if self.icefall_compat and self.max_sym_per_frame > 1 else None
        contexts = np.array([state.context for state in states], dtype=np.int64)
        decoder_proj = _decoder_proj(scorer, states, contexts)  # (N, J)
        emitted: list[list[_Emission]] = [[] for _ in states]
        for t in range(int(lens.max())):
            rows = np.flatnonzero(lens > t)
            for _ in range(self.max_sym_per_frame):
                if limit is not None:
                    rows = rows[
                        [len(states[n].tokens) + len(emitted[n]) < limit for n in rows.tolist()]
                    ]
                if not len(rows):
                    break
                logits = scorer.join(encoder_proj[rows, t], decoder_proj[rows])  # (M, V)
                if self.blank_penalty:
                    logits = logits.copy()
                    logits[:, scorer.blank_id] -= self.blank_penalty
                best = logits.argmax(axis=1)
                emits = (best[:, None] != skipped).all(axis=1)
                if not emits.any():
                    break
                # Those that emitted may emit again on this frame; the others have done with it.
                rows, best, logits = rows[emits], best[emits], logits[emits]
                best_logits = logits[np.arange(len(rows)), best]
                logprobs = best_logits - _logsumexp(logits)
                for row, token_id, logprob, logit in zip(
                    rows.tolist(),
                    best.tolist(),
                    logprobs.tolist(),
                    best_logits.tolist(),
                    strict=True,
                ):
                    emitted[row].append((token_id, states[row].num_frames + t, logprob, logit))
                contexts[rows] = np.concatenate([contexts[rows, 1:], best[:, None]], axis=1)
                decoder_proj[rows] = scorer.decode(contexts[rows])
        return [
            _extended(state, int(num_frames), tokens, context, proj)
            for state, num_frames, tokens, context, proj in zip(
                states, lens, emitted, contexts, decoder_proj, strict=True
            )
        ]

    def result(self, scorer: Scorer, state: GreedyState, *, is_final: bool) -> SearchResult:
        """The tokens so far: none of them ever changes."""
        return SearchResult(
            tokens=state.tokens,
            timestamps=state.timestamps,
            token_logprobs=state.token_logprobs,
            words=None,
            log_prob=sum(state.token_logprobs),
            num_stable=len(state.tokens),
        )

    def clear_result(
        self, scorer: Scorer, state: GreedyState, *, keep_history: bool
    ) -> GreedyState:
        """The same stream with an empty result; see `SearchMethod.clear_result`."""
        if not keep_history:
            return self.init_state(scorer)._replace(num_frames=state.num_frames)
        return GreedyState(state.context, state.decoder_proj, state.num_frames)


def _decoder_proj(scorer: Scorer, states: Sequence[GreedyState], contexts: IntArray) -> FloatArray:
    """(N, J) for all streams; computed for those that are new, kept for the others."""
    new = [n for n, state in enumerate(states) if state.decoder_proj is None]
    computed = dict(zip(new, scorer.decode(contexts[new]), strict=True)) if new else {}
    rows = [
        computed[n] if state.decoder_proj is None else state.decoder_proj
        for n, state in enumerate(states)
    ]
    return np.stack(rows)


def _logsumexp(logits: FloatArray) -> FloatArray:
    """(M,) of (M, V)."""
    top = logits.max(axis=1)
    total: FloatArray = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return total


def _extended(
    state: GreedyState,
    num_frames: int,
    tokens: list[_Emission],
    context: IntArray,
    decoder_proj: FloatArray,
) -> GreedyState:
    ids, frames, logprobs, logits = zip(*tokens, strict=True) if tokens else ((), (), (), ())
    return GreedyState(
        context=tuple(context.tolist()),
        # A copy: a view would keep the arrays of the whole batch alive.
        decoder_proj=decoder_proj.copy(),
        num_frames=state.num_frames + num_frames,
        tokens=state.tokens + ids,
        timestamps=state.timestamps + frames,
        token_logprobs=state.token_logprobs + logprobs,
        token_logits=state.token_logits + logits,
    )
