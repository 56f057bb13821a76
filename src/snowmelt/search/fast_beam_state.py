"""What does a stream of a graph search remember, and how do several lie side by side?

Invariant: stacking streams and taking one out again changes nothing; what is taken out shares no
memory with the others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.search.graph_advance import Active
from snowmelt.search.graph_history import ROOT, History
from snowmelt.search.lattice import LatticeFrames
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["Emissions", "FastBeamState", "Stacked", "chain", "joined"]


class Emissions(NamedTuple):
    """What a path gave out."""

    tokens: tuple[int, ...] = ()
    timestamps: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    words: tuple[int, ...] = ()
    word_timestamps: tuple[int, ...] = ()


class FastBeamState(NamedTuple):
    """One stream between two steps.

    Attributes:
        contexts: (A,) int64, codes of the active states' contexts.
        graph_states: (A,) int32.
        scores: (A,) float64.
        nodes: (A,) int32, last emission of each in `history`.
        history: emissions that may still be given up.
        committed: what all active states have in common.
        decoder_proj: prediction network output of the distinct contexts, in their order; None
            before the first step.
        num_frames: encoder frames searched so far.
        ended: compat only: last emission and score of the best state that could end the utterance
            one frame ago; None if there was none.
        lattice: what was kept of the frames, for searches that need it.
    """

    contexts: IntArray
    graph_states: IntArray
    scores: npt.NDArray[np.float64]
    nodes: IntArray
    history: History
    committed: Emissions = Emissions()
    decoder_proj: FloatArray | None = None
    num_frames: int = 0
    ended: tuple[int, float] | None = None
    lattice: tuple[LatticeFrames, ...] = ()


class Stacked(NamedTuple):
    """The streams of a step.

    Attributes:
        active: their active states, one stream after the other.
        nodes: (A,) int32, last emission of each active state.
        history: their emissions; the trees have become one.
        ended: of each stream, see `FastBeamState.ended`.
    """

    active: Active
    nodes: IntArray
    history: History
    ended: list[tuple[int, float] | None]

    @classmethod
    def of(cls, states: Sequence[FastBeamState]) -> "Stacked":
        """Streams side by side."""
        scores = np.concatenate([state.scores for state in states])
        active = Active(
            splits=np.cumsum([0] + [len(state.scores) for state in states]),
            contexts=np.concatenate([state.contexts for state in states]),
            graph_states=np.concatenate([state.graph_states for state in states]),
            scores=scores,
            sources=np.zeros(len(scores), dtype=np.int32),
            arcs=np.zeros(len(scores), dtype=np.int32),
        )
        # Numbers of emissions follow one another.
        sizes = [len(state.history.parents) for state in states]
        with_offsets = list(zip(states, np.cumsum([0, *sizes[:-1]]), strict=True))
        parents = [_moved(state.history.parents, offset) for state, offset in with_offsets]
        others = zip(*(state.history[1:] for state in states), strict=True)
        return cls(
            active,
            np.concatenate([_moved(state.nodes, offset) for state, offset in with_offsets]),
            History(np.concatenate(parents), *(np.concatenate(arrays) for arrays in others)),
            [_moved_end(state.ended, offset) for state, offset in with_offsets],
        )

    def stream(self, n: int, begin: int, end: int) -> FastBeamState:
        """Stream n on its own again; its emissions are `begin` to `end`.

        What is not stacked (committed, decoder_proj, num_frames, lattice) is left as in a new one.
        """
        part, own = slice(*self.active.splits[n : n + 2]), slice(begin, end)
        # Copies: a view would keep the arrays of the whole batch alive.
        return FastBeamState(
            contexts=self.active.contexts[part].copy(),
            graph_states=self.active.graph_states[part].copy(),
            scores=self.active.scores[part].copy(),
            nodes=_moved(self.nodes[part], -begin),
            history=History(
                _moved(self.history.parents[own], -begin),
                *(array[own].copy() for array in self.history[1:]),
            ),
            ended=_moved_end(self.ended[n], -begin),
        )


def chain(history: History, node: int) -> IntArray:
    """The emissions that lead to `node`, itself included, oldest first."""
    nodes = []
    while node != ROOT:
        nodes.append(node)
        node = int(history.parents[node])
    return np.array(nodes[::-1], dtype=np.int64)


def joined(first: Emissions, second: Emissions) -> Emissions:
    """What was given out first, then what came after."""
    return Emissions._make(a + b for a, b in zip(first, second, strict=True))


def _moved(nodes: IntArray, offset: int) -> IntArray:
    """Numbers of emissions, `offset` higher."""
    return np.where(nodes == ROOT, ROOT, nodes + offset).astype(np.int32)


def _moved_end(ended: tuple[int, float] | None, offset: int) -> tuple[int, float] | None:
    if ended is None or ended[0] == ROOT:
        return ended
    return ended[0] + int(offset), ended[1]
