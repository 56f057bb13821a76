"""How are the tokens of many hypotheses kept without copying them? As paths that share beginnings.

A record is one token emitted on one frame, behind another record; -1 stands for the beginning. A
hypothesis is the record of its last token. Two paths may hold the same tokens on different frames.

Invariant: a record never changes, and stands behind those it follows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.scorer import FloatArray

__all__ = ["Ints", "Tree", "empty_tree", "join_trees", "reserve", "same_tokens", "split_stable"]

Ints = npt.NDArray[np.int32]


class Tree(NamedTuple):
    """Records as arrays, all (R,).

    Attributes:
        parents: the record before, -1 for none.
        tokens: token id.
        frames: encoder frame of emission, counted from the stream's start.
        logprobs: log-probability of the token on its frame.
    """

    parents: Ints
    tokens: Ints
    frames: Ints
    logprobs: FloatArray


def empty_tree() -> Tree:
    """No records."""
    none = np.zeros(0, np.int32)
    return Tree(none, none, none, np.zeros(0, np.float32))


def join_trees(trees: list[Tree]) -> tuple[Tree, list[int]]:
    """One tree of several, and how far the records of each have moved."""
    offsets = np.cumsum([0, *(len(tree.parents) for tree in trees)])[:-1].tolist()
    parents = [
        np.where(tree.parents < 0, -1, tree.parents + offset).astype(np.int32)
        for tree, offset in zip(trees, offsets, strict=True)
    ]
    joined = Tree(
        parents=np.concatenate(parents),
        tokens=np.concatenate([tree.tokens for tree in trees]),
        frames=np.concatenate([tree.frames for tree in trees]),
        logprobs=np.concatenate([tree.logprobs for tree in trees]),
    )
    return joined, offsets


def reserve(tree: Tree, size: int) -> Tree:
    """The tree with room for `size` records; what lies behind those written is undefined."""
    if len(tree.parents) >= size:
        return tree
    return _each(tree, lambda array: np.resize(array, max(size, 2 * len(array))))


@compiled
def same_tokens(tree: Tree, a: int, b: int) -> bool:
    """Do two paths of equal length hold the same tokens?"""
    while a != b:
        if tree.tokens[a] != tree.tokens[b]:
            return False
        a, b = tree.parents[a], tree.parents[b]
    return True


@compiled
def _marked(tree: Tree, nodes: Ints, visits: Ints) -> tuple[int, int]:
    """Counts in `visits` (R,) how many paths go through each record; first and last record + 1."""
    first, stop = len(visits), 0
    for node in nodes:
        stop = max(stop, node + 1)
        while node >= 0:
            visits[node] += 1
            first = min(first, node)
            node = tree.parents[node]
    return first, stop


def split_stable(tree: Tree, nodes: Ints, visits: Ints) -> tuple[Tree, Tree, Ints]:
    """What all paths share, and what they do not.

    Args:
        tree: the records.
        nodes: (K,) the last records of K paths, K >= 1.
        visits: (R,) zeros; zeros again afterwards.

    Returns:
        the records that begin every path, in order; the other records; (K,) the last records in
        the latter, -1 for a path that has none.
    """
    first, stop = _marked(tree, nodes, visits)
    counts = visits[first:stop]
    shared = first + np.flatnonzero(counts == len(nodes))
    rest = first + np.flatnonzero((counts > 0) & (counts < len(nodes)))
    counts[:] = 0
    new_ids = np.full(stop + 1, -1, dtype=np.int32)  # the last place is that of record -1
    new_ids[rest] = np.arange(len(rest), dtype=np.int32)
    rest_tree = _each(tree, lambda array: array[rest])
    rest_tree = rest_tree._replace(parents=new_ids[rest_tree.parents])
    return _each(tree, lambda array: array[shared]), rest_tree, new_ids[nodes]


def _each(tree: Tree, function: Callable[[Any], Any]) -> Tree:
    """The tree with every array replaced."""
    return Tree(*map(function, tree))
