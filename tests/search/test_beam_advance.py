"""One frame of modified beam search: choice, merging, new records and contexts."""

import numpy as np
import pytest

from snowmelt.search.beam_advance import advance_beams, empty_beams
from snowmelt.search.context_graph import build_context_graph
from snowmelt.search.prefix_tree import empty_tree, reserve

_BITS = 31  # a context of two tokens
_MASK = (1 << 62) - 1
_BLANK = np.array([0])


def _advance(beams, tree, size, logprobs, frame=0, late=False, graph=None):
    streams = np.flatnonzero(beams.counts)
    return advance_beams(
        beams,
        streams,
        np.full(len(streams), frame),
        np.log(np.array(logprobs, np.float32)),
        _BLANK,
        _BITS,
        _MASK,
        tree,
        size,
        (graph or build_context_graph([], [])).tables,
        np.zeros((0, 0), np.float32),
        late,
    )


def _start(beam: int):
    beams = empty_beams(1, beam, np.float32)
    beams.counts[0] = 1
    return beams, reserve(empty_tree(), 100)


def test_the_best_entries_survive_in_order():
    beams, tree = _start(2)
    size = _advance(beams, tree, 0, [[0.2, 0.5, 0.3]], frame=7)
    assert size == 2 and beams.counts.tolist() == [2]
    assert np.exp(beams.log_probs[0]).tolist() == pytest.approx([0.5, 0.3])
    assert tree.tokens[:2].tolist() == [1, 2] and tree.frames[:2].tolist() == [7, 7]
    assert beams.nodes[0].tolist() == [0, 1] and beams.num_tokens[0].tolist() == [1, 1]
    assert beams.rows[0].tolist() == [-1, -1]  # contexts that nobody has asked for yet
    assert beams.codes[0].tolist() == [2, 3]


def test_blank_keeps_the_hypothesis_and_its_context():
    beams, tree = _start(1)
    beams.rows[0, 0], beams.codes[0, 0] = 5, 77
    assert _advance(beams, tree, 0, [[0.6, 0.4]]) == 0
    assert beams.rows[0, 0] == 5 and beams.codes[0, 0] == 77 and beams.nodes[0, 0] == -1


def test_equal_tokens_become_one_and_the_better_path_stays():
    beams, tree = _start(4)
    size = _advance(beams, tree, 0, [[0.6, 0.4]], frame=0)  # (), (1)
    size = _advance(beams, tree, size, [[0.3, 0.7], [0.9, 0.1]], frame=1)
    # () 0.18; (1): 0.6 * 0.7 on frame 1 and 0.4 * 0.9 on frame 0; (1 1) 0.04.
    assert beams.counts[0] == 3
    assert np.exp(beams.log_probs[0, :3]).tolist() == pytest.approx([0.42 + 0.36, 0.18, 0.04])
    assert tree.frames[beams.nodes[0, 0]] == 1


def test_ties_go_to_the_earlier_entry():
    beams, tree = _start(2)
    _advance(beams, tree, 0, [[0.25, 0.25, 0.25, 0.25]])
    assert beams.nodes[0].tolist() == [-1, 0] and tree.tokens[0] == 1


def test_a_bonus_is_early_or_late():
    graph = build_context_graph([[2]], [3.0])
    for late, tokens in ((False, 2), (True, 1)):
        beams, tree = _start(1)
        _advance(beams, tree, 0, [[0.2, 0.5, 0.3]], late=late, graph=graph)
        assert tree.tokens[0] == tokens


def test_streams_that_are_not_named_stay():
    beams = empty_beams(3, 2, np.float32)
    beams.counts[:] = 1
    beams.counts[1] = 0
    beams.log_probs[1] = 9.0
    tree = reserve(empty_tree(), 20)
    _advance(beams, tree, 0, [[0.9, 0.1], [0.1, 0.9]])
    assert beams.log_probs[1].tolist() == [9, 9] and beams.counts.tolist() == [2, 0, 2]
    assert np.exp(beams.log_probs[[0, 2], 0]).tolist() == pytest.approx([0.9, 0.9])
