"""Paths that share beginnings: equal tokens, joined trees, and what all of them share."""

import numpy as np

from snowmelt.search.prefix_tree import (
    Tree,
    empty_tree,
    join_trees,
    reserve,
    same_tokens,
    split_stable,
)

# 0: a; 1: ab; 2: abc; 3: abd; 4: a on another frame; 5: ab of 4.
_TREE = Tree(
    parents=np.array([-1, 0, 1, 1, -1, 4], np.int32),
    tokens=np.array([1, 2, 3, 4, 1, 2], np.int32),
    frames=np.array([0, 1, 2, 3, 5, 6], np.int32),
    logprobs=np.arange(6, dtype=np.float32),
)


def _nodes(*nodes: int) -> np.ndarray:
    return np.array(nodes, dtype=np.int32)


def test_paths_are_compared_by_tokens_not_by_frames():
    assert same_tokens(_TREE, 1, 5) and same_tokens(_TREE, 1, 1) and same_tokens(_TREE, -1, -1)
    assert not same_tokens(_TREE, 2, 3)


def test_what_all_paths_share_is_split_off():
    visits = np.zeros(6, np.int32)
    shared, rest, nodes = split_stable(_TREE, _nodes(2, 3, 1), visits)
    assert shared.tokens.tolist() == [1, 2] and shared.frames.tolist() == [0, 1]
    assert rest.tokens.tolist() == [3, 4] and rest.parents.tolist() == [-1, -1]
    assert nodes.tolist() == [0, 1, -1] and not visits.any()


def test_the_same_tokens_on_other_frames_are_not_shared():
    shared, rest, nodes = split_stable(_TREE, _nodes(1, 5), np.zeros(6, np.int32))
    assert shared.tokens.tolist() == []
    assert rest.parents.tolist() == [-1, 0, -1, 2] and nodes.tolist() == [1, 3]


def test_one_path_is_shared_whole_and_none_is_nothing():
    shared, rest, nodes = split_stable(_TREE, _nodes(5), np.zeros(6, np.int32))
    assert shared.frames.tolist() == [5, 6] and len(rest.tokens) == 0 and nodes.tolist() == [-1]
    shared, rest, nodes = split_stable(_TREE, _nodes(-1, 2), np.zeros(6, np.int32))
    assert len(shared.tokens) == 0 and nodes.tolist() == [-1, 2]


def test_joined_trees_keep_their_paths():
    joined, offsets = join_trees([_TREE, empty_tree(), _TREE])
    assert offsets == [0, 6, 6]
    assert joined.parents[6:].tolist() == [-1, 6, 7, 7, -1, 10]
    assert same_tokens(joined, 2, 2 + offsets[2])


def test_room_is_made_and_kept():
    roomy = reserve(_TREE, 7)
    assert len(roomy.parents) >= 7 and roomy.tokens[:6].tolist() == _TREE.tokens.tolist()
    assert reserve(roomy, 7) is roomy
    assert len(reserve(empty_tree(), 3).parents) >= 3
