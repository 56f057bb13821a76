"""Which tokens did the active states of a graph search take on their way?

Histories share what they have in common: a tree of emissions, from the newest back to the oldest.
A blank adds nothing. What all active states of a stream have in common can no longer change: it
is committed, and the branches that no active state ends are forgotten. So an hour of sound
needs no more room here than a minute.

Invariant: a parent's number is smaller than its child's.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.graph_advance import GraphArrays, grown

__all__ = ["ROOT", "History", "empty_history", "pruned", "with_emissions"]

_Array = npt.NDArray[Any]

ROOT = -1  # before the first emission that is not committed


class History(NamedTuple):
    """A tree of M emissions.

    Attributes:
        parents: (M,) int32, the emission before, or ROOT.
        tokens: (M,) int32; 0 where an arc made words without taking a token.
        arcs: (M,) int32, number of the graph's arc.
        frames: (M,) int64, encoder frame counted from the stream's start.
        logprobs: (M,) float32, log-probability of the token.
    """

    parents: _Array
    tokens: _Array
    arcs: _Array
    frames: _Array
    logprobs: _Array


def empty_history() -> History:
    """No emissions."""
    return History(
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=np.int64),
        np.empty(0, dtype=np.float32),
    )


@compiled
def with_emissions(
    history: History,
    size: int,
    graph: GraphArrays,
    nodes: _Array,
    sources: _Array,
    arcs: _Array,
    rows: _Array,
    token_logprobs: _Array,
    frames: _Array,
) -> tuple[History, int, _Array]:
    """Add what one frame emitted.

    Args:
        history: with room behind its `size` emissions that may be used.
        size: M.
        graph: the graph.
        nodes: (A,) int32, last emission of the states before the frame.
        sources: (B,) int32 state before, of the states after the frame.
        arcs: (B,) int32 arc taken.
        rows: (A,) int64, row of `token_logprobs` of the states before.
        token_logprobs: (R, V) float32.
        frames: (B,) int64, number of the frame.

    Returns:
        history, size, (B,) int32 last emission of the states after the frame.
    """
    if size + len(sources) > len(history.parents):
        room = 2 * (size + len(sources))
        history = History(
            grown(history.parents, room),
            grown(history.tokens, room),
            grown(history.arcs, room),
            grown(history.frames, room),
            grown(history.logprobs, room),
        )
    new_nodes = np.empty(len(sources), dtype=np.int32)
    for i in range(len(sources)):
        node, arc = nodes[sources[i]], arcs[i]
        if arc >= 0 and (graph.labels[arc] != 0 or graph.has_words[arc]):
            token = graph.labels[arc]
            history.parents[size] = node
            history.tokens[size] = token
            history.arcs[size] = arc
            history.frames[size] = frames[i]
            history.logprobs[size] = token_logprobs[rows[sources[i]], token] if token else 0.0
            node = size
            size += 1
        new_nodes[i] = node
    return history, size, new_nodes


@compiled
def pruned(
    parents: _Array, leaf_splits: _Array, leaves: _Array
) -> tuple[_Array, _Array, _Array, _Array, _Array, _Array]:
    """What is left of a tree, and what has become certain.

    Args:
        parents: (M,) of the tree that holds the histories of N streams.
        leaf_splits: (N + 1,) int64 and
        leaves: (L,) int32, the emissions where histories of stream n end, or ROOT.

    Returns:
        committed_splits (N + 1,), committed (C,): emissions common to all leaves of stream n, in
        order. kept_splits (N + 1,), kept (K,): the others that lead to a leaf, in order.
        (K,) int32 their new parents and (L,) int32 the new leaves, by place in `kept`.
    """
    num_streams, size = len(leaf_splits) - 1, len(parents)
    num_leaves = np.zeros(size, dtype=np.int64)  # below an emission
    streams = np.full(size, -1, dtype=np.int64)
    for n in range(num_streams):
        for i in range(leaf_splits[n], leaf_splits[n + 1]):
            if leaves[i] != ROOT:
                num_leaves[leaves[i]] += 1
                streams[leaves[i]] = n
    committed_splits = np.zeros(num_streams + 1, dtype=np.int64)
    kept_splits = np.zeros(num_streams + 1, dtype=np.int64)
    for node in range(size - 1, -1, -1):
        if num_leaves[node] == 0:
            continue
        n, parent = streams[node], parents[node]
        if parent != ROOT:
            num_leaves[parent] += num_leaves[node]
            streams[parent] = n
        if num_leaves[node] == leaf_splits[n + 1] - leaf_splits[n]:
            committed_splits[n + 1] += 1
        else:
            kept_splits[n + 1] += 1
    committed_splits = np.cumsum(committed_splits)
    kept_splits = np.cumsum(kept_splits)

    committed = np.empty(committed_splits[num_streams], dtype=np.int64)
    kept = np.empty(kept_splits[num_streams], dtype=np.int64)
    kept_parents = np.empty(kept_splits[num_streams], dtype=np.int32)
    next_committed, next_kept = committed_splits.copy(), kept_splits.copy()
    new_numbers = np.full(size, ROOT, dtype=np.int32)
    for node in range(size):
        if num_leaves[node] == 0:
            continue
        n, parent = streams[node], parents[node]
        if num_leaves[node] == leaf_splits[n + 1] - leaf_splits[n]:
            committed[next_committed[n]] = node
            next_committed[n] += 1
        else:
            new_numbers[node] = next_kept[n]
            kept[next_kept[n]] = node
            kept_parents[next_kept[n]] = ROOT if parent == ROOT else new_numbers[parent]
            next_kept[n] += 1
    new_leaves = np.full(len(leaves), ROOT, dtype=np.int32)
    for i in range(len(leaves)):
        if leaves[i] != ROOT:
            new_leaves[i] = new_numbers[leaves[i]]
    return committed_splits, committed, kept_splits, kept, kept_parents, new_leaves
