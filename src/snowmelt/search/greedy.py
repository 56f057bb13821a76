"""Which tokens does an utterance hold, if the best token is taken at every frame?

The same function serves whole utterances and chunks: a state goes in, a new state comes out, and
the state is the result so far.

Invariant: a stream's result depends on its own frames only, not on the other streams of the
batch nor on how its frames were cut into steps.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py, greedy_search and
greedy_search_batch (theirs stop at 1000 symbols an utterance; here there is no such limit).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from snowmelt.search.scorer import FloatArray, IntArray, Scorer, initial_context

__all__ = ["GreedyState", "clear_result", "greedy_search", "greedy_step", "init_state"]

# No token has this id, so that "no unk" needs no second code path.
_NO_TOKEN = -1


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


def init_state(scorer: Scorer) -> GreedyState:
    """State of a stream that has heard nothing."""
    return GreedyState(context=initial_context(scorer), decoder_proj=None)


def clear_result(scorer: Scorer, state: GreedyState, *, keep_history: bool = True) -> GreedyState:
    """The same stream with an empty result: what follows is a new segment.

    Args:
        scorer: the scorer that is searched with.
        state: a stream's state.
        keep_history: go on from the last tokens, as sherpa-onnx does; if False, from the history
            of a fresh stream.
    """
    if not keep_history:
        return init_state(scorer)._replace(num_frames=state.num_frames)
    return GreedyState(state.context, state.decoder_proj, state.num_frames)


def greedy_search(
    scorer: Scorer,
    encoder_proj: FloatArray,
    lens: IntArray,
    *,
    max_sym_per_frame: int = 1,
    blank_penalty: float = 0.0,
) -> list[GreedyState]:
    """Search whole utterances; arguments and errors as `greedy_step`.

    Returns:
        one state an utterance, whose fields are the result.
    """
    return greedy_step(
        scorer,
        encoder_proj,
        lens,
        [init_state(scorer) for _ in lens],
        max_sym_per_frame=max_sym_per_frame,
        blank_penalty=blank_penalty,
    )


def greedy_step(
    scorer: Scorer,
    encoder_proj: FloatArray,
    lens: IntArray,
    states: Sequence[GreedyState],
    *,
    max_sym_per_frame: int = 1,
    blank_penalty: float = 0.0,
) -> list[GreedyState]:
    """Advance N streams by the encoder frames they got.

    Args:
        scorer: prediction network and joiner.
        encoder_proj: (N, T, J) float32, projected encoder output.
        lens: (N,) int64, valid frames of each stream, 0 to T; frames beyond are not looked at.
        states: N states.
        max_sym_per_frame: most tokens one encoder frame may emit, at least 1.
        blank_penalty: subtracted from the logit of blank: above 0 gives fewer deletions and more
            insertions.

    Returns:
        N new states; `states` are unchanged.

    Raises:
        ValueError: shapes do not fit together, or max_sym_per_frame is below 1.
    """
    _check(encoder_proj, lens, states, max_sym_per_frame)
    if not states:
        return []
    unk_id = _NO_TOKEN if scorer.unk_id is None else scorer.unk_id
    contexts = np.array([state.context for state in states], dtype=np.int64)
    decoder_proj = _decoder_proj(scorer, states, contexts)  # (N, J)
    emitted: list[list[tuple[int, int, float, float]]] = [[] for _ in states]

    for t in range(int(lens.max())):
        rows = np.flatnonzero(lens > t)
        for _ in range(max_sym_per_frame):
            logits = scorer.join(encoder_proj[rows, t], decoder_proj[rows])  # (M, V)
            if blank_penalty:
                logits = logits.copy()
                logits[:, scorer.blank_id] -= blank_penalty
            best = logits.argmax(axis=1)
            emits = (best != scorer.blank_id) & (best != unk_id)
            if not emits.any():
                break
            # The streams that emitted may emit again on this frame; the others have done with it.
            rows, best, logits = rows[emits], best[emits], logits[emits]
            best_logits = logits[np.arange(len(rows)), best]
            logprobs = best_logits - _logsumexp(logits)
            for row, token_id, logprob, logit in zip(
                rows.tolist(), best.tolist(), logprobs.tolist(), best_logits.tolist(), strict=True
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


def _check(
    encoder_proj: FloatArray,
    lens: IntArray,
    states: Sequence[GreedyState],
    max_sym_per_frame: int,
) -> None:
    if encoder_proj.ndim != 3 or not len(encoder_proj) == len(lens) == len(states):
        raise ValueError(
            f"encoder_proj must be (N, T, J) for {len(states)} states and {len(lens)} lengths, "
            f"got {encoder_proj.shape}"
        )
    if len(lens) and (lens.min() < 0 or lens.max() > encoder_proj.shape[1]):
        raise ValueError(f"lens must lie in 0..{encoder_proj.shape[1]}, got {lens.tolist()}")
    if max_sym_per_frame < 1:
        raise ValueError(f"max_sym_per_frame must be at least 1, got {max_sym_per_frame}")


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
    tokens: list[tuple[int, int, float, float]],
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
