"""What do all searches have in common? State in, state out, and a result at any time.

Recognizers, decoders and servers are written against `SearchMethod`; which search it is, is
decided where it is built (`search/methods.py`).

Invariant: a method holds settings only. A stream's result depends on its own frames, not on the
other streams of a batch nor on how its frames were cut into steps; states handed in stay as they
were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from snowmelt.search.scorer import FloatArray, IntArray, Scorer

__all__ = [
    "NbestMethod",
    "ScoreParts",
    "SearchMethod",
    "SearchResult",
    "check_step",
    "n_best",
    "num_common",
    "ranked_per_token",
    "search_whole",
    "skipped_ids",
    "token_logprobs",
]

State = TypeVar("State")

# Natural logs of the first pass's, the language model's and the n-gram's scores of a hypothesis.
ScoreParts = tuple[float, float, float]


@dataclass(frozen=True)
class SearchResult:
    """The best path of a stream so far.

    Attributes:
        tokens: emitted token ids, in order.
        timestamps: encoder frame at which each was emitted, counted from the stream's start.
        token_logprobs: natural log of each token's probability on its frame, after the blank
            penalty and the temperature, before any language model or hotword.
        words: word ids, of searches on a graph of words only; otherwise None.
        log_prob: natural log of the path's score, with all that was added to it.
        num_stable: so many tokens at the front can no longer change.
        word_timestamps: encoder frame of each of `words`; None where they are.
        score_parts: what a rescored hypothesis has its `log_prob` from; otherwise None.
    """

    tokens: tuple[int, ...]
    timestamps: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    words: tuple[int, ...] | None
    log_prob: float
    num_stable: int
    word_timestamps: tuple[int, ...] | None = None
    score_parts: ScoreParts | None = None


class SearchMethod(Protocol[State]):
    """A search; `State` is one stream's state, opaque to everybody else."""

    def init_state(self, scorer: Scorer) -> State:
        """State of a stream that has heard nothing."""

    def step(
        self,
        scorer: Scorer,
        encoder_proj: FloatArray,
        lens: IntArray,
        states: Sequence[State],
    ) -> list[State]:
        """Advance N streams by the encoder frames they got; the same result for every cut.

        Args:
            scorer: prediction network and joiner.
            encoder_proj: (N, T, J) float32, projected encoder output.
            lens: (N,) int64, valid frames of each stream, 0 to T; frames beyond are not looked at.
            states: N states.

        Returns:
            N new states; `states` are unchanged.

        Raises:
            ValueError: shapes do not fit together.
        """

    def result(self, scorer: Scorer, state: State, *, is_final: bool) -> SearchResult:
        """Best path so far.

        Args:
            scorer: the scorer that is searched with.
            state: a stream's state; it can go on afterwards.
            is_final: nothing follows: what was granted for the sake of later frames is taken back.
        """

    def clear_result(self, scorer: Scorer, state: State, *, keep_history: bool) -> State:
        """The same stream with an empty result: what follows is a new segment.

        Args:
            scorer: the scorer that is searched with.
            state: a stream's state; frames go on being counted from the stream's start.
            keep_history: go on from the last tokens, as sherpa-onnx does; if False, from the
                history of a fresh stream.
        """


@runtime_checkable
class NbestMethod(Protocol):
    """What a search offers beside the verbs of `SearchMethod` if it knows more than one path."""

    def n_best(self, scorer: Scorer, state: Any, *, is_final: bool) -> list[SearchResult]:
        """All hypotheses, the best first: it is what `SearchMethod.result` gives."""


def n_best(
    method: SearchMethod[Any], scorer: Scorer, state: Any, *, is_final: bool
) -> list[SearchResult]:
    """All hypotheses of a search, the best first; of a search that knows one path, that one."""
    if isinstance(method, NbestMethod):
        return method.n_best(scorer, state, is_final=is_final)
    return [method.result(scorer, state, is_final=is_final)]


def search_whole(
    method: SearchMethod[Any], scorer: Scorer, encoder_proj: FloatArray, lens: IntArray
) -> list[SearchResult]:
    """Final results of N whole utterances; arguments and errors as `SearchMethod.step`."""
    states = [method.init_state(scorer) for _ in lens]
    return [
        method.result(scorer, state, is_final=True)
        for state in method.step(scorer, encoder_proj, lens, states)
    ]


def check_step(encoder_proj: FloatArray, lens: IntArray, states: Sequence[object]) -> None:
    """Do the arguments of a step fit together?

    Raises:
        ValueError: they do not.
    """
    if encoder_proj.ndim != 3 or not len(encoder_proj) == len(lens) == len(states):
        raise ValueError(
            f"encoder_proj must be (N, T, J) for {len(states)} states and {len(lens)} lengths, "
            f"got {encoder_proj.shape}"
        )
    if len(lens) and (lens.min() < 0 or lens.max() > encoder_proj.shape[1]):
        raise ValueError(f"lens must lie in 0..{encoder_proj.shape[1]}, got {lens.tolist()}")


def skipped_ids(scorer: Scorer, *, icefall_compat: bool) -> IntArray:
    """(1 or 2,) ids that are never emitted: blank, then <unk>.

    The original's models of the two recipes do not know an <unk>: it is emitted like any token.
    """
    ids = [scorer.blank_id]
    if scorer.unk_id is not None and not icefall_compat:
        ids.append(scorer.unk_id)
    return np.array(ids, dtype=np.int64)


def token_logprobs(
    scorer: Scorer,
    encoder_proj: FloatArray,
    decoder_proj: FloatArray,
    *,
    blank_penalty: float,
    temperature: float,
) -> FloatArray:
    """(M, V) log-probabilities of the next token; arguments as `Scorer.join`.

    Args:
        scorer: the joiner.
        encoder_proj: (M, J).
        decoder_proj: (M, J).
        blank_penalty: subtracted from the logit of blank.
        temperature: what the logits are divided by then.
    """
    logits = scorer.join(encoder_proj, decoder_proj)
    if blank_penalty:
        logits = logits.copy()
        logits[:, scorer.blank_id] -= blank_penalty
    if temperature != 1.0:
        logits = logits / temperature
    logprobs: FloatArray = logits - logits.max(axis=1, keepdims=True)
    logprobs -= np.log(np.exp(logprobs).sum(axis=1, keepdims=True))
    return logprobs


def ranked_per_token(
    log_probs: FloatArray, num_tokens: npt.NDArray[np.integer], context_size: int
) -> list[int]:
    """Hypotheses by log-probability per token, the best first, ties in their order.

    The start symbols count as tokens, as in the original: scales that were tuned there stay right.
    """
    order: list[int] = np.argsort(
        -(log_probs / (num_tokens + context_size)), kind="stable"
    ).tolist()
    return order


def num_common(paths: Sequence[tuple[int, ...]]) -> int:
    """How many tokens begin all of these paths."""
    # What the first and the last in the order of words share, those between share too.
    lowest, highest = min(paths), max(paths)
    count = 0
    for low, high in zip(lowest, highest, strict=False):
        if low != high:
            break
        count += 1
    return count
