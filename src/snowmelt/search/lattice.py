"""What is a lattice: all that a graph search kept, as a graph of its own?

Its states are the search's states frame by frame, then one final state; every arc leads from one
frame to the next, so the place of an arc in a path is its frame. A search may keep it to
choose among whole utterances: `nbest.py`.

Invariant: arcs are sorted by their source, so the arrays are in topological order. Sums are taken
in float64.

Source: k2's rnnt_decode, format_output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.graph_advance import FINAL_ARC, KeptArcs

__all__ = [
    "Lattice",
    "LatticeFrames",
    "backward_scores",
    "compat_lattice",
    "log_add",
    "stream_frames",
    "whole_lattice",
]

_Array = npt.NDArray[Any]


class LatticeFrames(NamedTuple):
    """What one stream kept of T frames.

    Attributes:
        sizes: (T,) int64, active states after each frame.
        splits: (T + 1,) int64; arcs of frame t are splits[t] to splits[t + 1].
        sources, targets, arcs, tokens, scores, token_logprobs: (K,) as in `KeptArcs`.
    """

    sizes: _Array
    splits: _Array
    sources: _Array
    targets: _Array
    arcs: _Array
    tokens: _Array
    scores: _Array
    token_logprobs: _Array


@dataclass(frozen=True, eq=False)
class Lattice:
    """S states and K arcs of one utterance; state 0 is the start, the last the only final one.

    Attributes:
        layer_splits: (L + 1,) int64; states of layer l are layer_splits[l] to layer_splits[l + 1];
            the last layer is the final state alone. Empty of arcs if nothing reaches it.
        row_splits: (S + 1,) int64; arcs of state s.
        targets: (K,) int64.
        arcs: (K,) int32, number of the search graph's arc, BLANK_ARC or FINAL_ARC.
        tokens: (K,) int32, token taken; 0 if none is.
        scores: (K,) float32.
        token_logprobs: (K,) float32, log-probability of the token taken.
    """

    layer_splits: _Array
    row_splits: _Array
    targets: _Array
    arcs: _Array
    tokens: _Array
    scores: _Array
    token_logprobs: _Array

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.row_splits) - 1

    def log_total(self) -> float:
        """Natural log of the sum over all paths; -inf if there is none."""
        scores = self.scores.astype(np.float64)
        return float(backward_scores(self.row_splits, self.targets, scores)[0])


def stream_frames(n: int, frames: Sequence[tuple[KeptArcs, _Array]]) -> LatticeFrames:
    """The part of stream `n` in frames of a batch.

    Args:
        n: number of the stream.
        frames: arcs and (N,) numbers of active states after each frame.
    """
    parts = [slice(kept.splits[n], kept.splits[n + 1]) for kept, _ in frames]
    lens = [part.stop - part.start for part in parts]
    arrays = zip(
        *([a[part] for a in kept[1:]] for (kept, _), part in zip(frames, parts, strict=True)),
        strict=True,
    )
    return LatticeFrames(
        np.array([sizes[n] for _, sizes in frames], dtype=np.int64),
        np.cumsum([0, *lens]),
        *(np.concatenate(array) for array in arrays),
    )


def whole_lattice(pieces: Sequence[LatticeFrames], final_scores: _Array) -> Lattice:
    """The lattice after the last frame.

    Args:
        pieces: frames of one utterance, in order.
        final_scores: (A,) what ending adds to each state after the last frame; -inf where the
            utterance cannot end.
    """
    frames = _one_piece(pieces)
    ends = np.flatnonzero(np.isfinite(final_scores))
    count = len(ends)
    return _lattice(
        frames._replace(
            sizes=np.append(frames.sizes, 1),
            splits=np.append(frames.splits, frames.splits[-1] + count),
            sources=np.append(frames.sources, ends),
            targets=np.append(frames.targets, np.zeros(count, dtype=np.int64)),
            arcs=np.append(frames.arcs, np.full(count, FINAL_ARC)),
            tokens=np.append(frames.tokens, np.zeros(count, dtype=np.int32)),
            scores=np.append(frames.scores, final_scores[ends].astype(np.float32)),
            token_logprobs=np.append(frames.token_logprobs, np.zeros(count, dtype=np.float32)),
        )
    )


def compat_lattice(pieces: Sequence[LatticeFrames], *, allow_partial: bool) -> Lattice:
    """The original's: the last frame's arcs all end the utterance and score nothing.

    Args:
        pieces: frames of one utterance, in order.
        allow_partial: where no arc of the graph ends, all do; otherwise there is no path then.
    """
    frames = _one_piece(pieces)
    if not len(frames.sizes):
        return whole_lattice(pieces, np.full(1, -np.inf))
    first = int(frames.splits[-2])
    is_kept = frames.arcs[first:] == FINAL_ARC
    if allow_partial and not is_kept.any():
        is_kept = np.ones_like(is_kept)
    sources = frames.sources[first:][is_kept]
    count = len(sources)
    return _lattice(
        LatticeFrames(
            np.append(frames.sizes[:-1], 1),
            np.append(frames.splits[:-1], first + count),
            np.append(frames.sources[:first], sources),
            np.append(frames.targets[:first], np.zeros(count, dtype=np.int64)),
            np.append(frames.arcs[:first], np.full(count, FINAL_ARC)),
            np.append(frames.tokens[:first], np.zeros(count, dtype=np.int32)),
            np.append(frames.scores[:first], np.zeros(count, dtype=np.float32)),
            np.append(frames.token_logprobs[:first], np.zeros(count, dtype=np.float32)),
        )
    )


def _one_piece(pieces: Sequence[LatticeFrames]) -> LatticeFrames:
    """Consecutive frames as one piece."""
    if not pieces:
        none = np.empty(0, dtype=np.int64)
        scores = np.empty(0, dtype=np.float32)
        return LatticeFrames(
            none, np.zeros(1, dtype=np.int64), none, none, none, none, scores, scores
        )
    lens = np.concatenate([np.diff(piece.splits) for piece in pieces])
    rest = zip(*(piece[2:] for piece in pieces), strict=True)
    return LatticeFrames(
        np.concatenate([piece.sizes for piece in pieces]),
        np.concatenate([[0], np.cumsum(lens)]),
        *(np.concatenate(arrays) for arrays in rest),
    )


def _lattice(frames: LatticeFrames) -> Lattice:
    """States numbered through; the last frame is the step to the final state."""
    layer_splits = np.concatenate([[0, 1], 1 + np.cumsum(frames.sizes)])
    lens = np.diff(frames.splits)
    sources = frames.sources + np.repeat(layer_splits[: len(lens)], lens)
    targets = frames.targets + np.repeat(layer_splits[1 : len(lens) + 1], lens)
    return Lattice(
        layer_splits,
        np.searchsorted(sources, np.arange(layer_splits[-1] + 1)),
        targets,
        frames.arcs.astype(np.int32),
        frames.tokens.astype(np.int32),
        frames.scores,
        frames.token_logprobs,
    )


@compiled
def log_add(a: float, b: float) -> float:
    """ln(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    if b == -np.inf:
        return a
    return a + float(np.log1p(np.exp(b - a)))


@compiled
def backward_scores(row_splits: _Array, targets: _Array, scores: _Array) -> _Array:
    """(S,) float64: log of the sum over all paths from each state to the last."""
    num_states = len(row_splits) - 1
    backward = np.full(num_states, -np.inf)
    backward[num_states - 1] = 0.0
    for state in range(num_states - 2, -1, -1):
        for k in range(row_splits[state], row_splits[state + 1]):
            backward[state] = log_add(backward[state], scores[k] + backward[targets[k]])
    return backward
