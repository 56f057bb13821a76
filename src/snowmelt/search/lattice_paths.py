"""Which paths does a lattice hold, and what is a given sequence worth in it?

Paths are sampled without chance: the i-th of P paths is the one at the share (i + 0.5) / P of the
probability. A sequence's value is that of its best path, or the sum over all its paths.

Invariant: the same lattice gives the same paths.

Source: k2's random_paths and intersection, as icefall's Nbest uses them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.lattice import Lattice, backward_scores, log_add

__all__ = ["SequenceTree", "sampled_paths", "sequence_values"]

_Array = npt.NDArray[Any]

_NO_SLOT = -1


def sampled_paths(lattice: Lattice, num_paths: int, nbest_scale: float) -> _Array:
    """Paths by their probability.

    Args:
        lattice: L layers of arcs.
        num_paths: P.
        nbest_scale: what scores are multiplied by before; smaller gives more varied paths.

    Returns:
        (P, L) int64 arcs of the lattice; (0, L) if it has no path.
    """
    scores = lattice.scores * nbest_scale if nbest_scale != 1.0 else lattice.scores
    scores = scores.astype(np.float64)
    backward = backward_scores(lattice.row_splits, lattice.targets, scores)
    num_layers = len(lattice.layer_splits) - 2
    if backward[0] == -np.inf:
        return np.empty((0, num_layers), dtype=np.int64)
    return _walks(lattice.row_splits, lattice.targets, scores, backward, num_paths, num_layers)


class SequenceTree:
    """Distinct sequences that share their beginnings.

    Args:
        sequences: Q of them, each different from the others.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        children: list[dict[int, int]] = [{}]
        ends = []
        for sequence in sequences:
            node = 0
            for symbol in sequence:
                if symbol not in children[node]:
                    children[node][symbol] = len(children)
                    children.append({})
                node = children[node][symbol]
            ends.append(node)
        self.ends = np.array(ends, dtype=np.int64)
        self.splits = np.cumsum([0] + [len(own) for own in children])
        self.symbols = np.array([s for own in children for s in own], dtype=np.int64)
        self.nodes = np.array([n for own in children for n in own.values()], dtype=np.int64)


def sequence_values(
    lattice: Lattice,
    symbol_splits: _Array,
    symbols: _Array,
    tree: SequenceTree,
    *,
    sums_paths: bool,
) -> tuple[_Array, _Array]:
    """What each of Q sequences is worth in a lattice.

    Args:
        lattice: K arcs, L layers of them.
        symbol_splits: (K + 1,) int64; what arc k gives out is symbols[symbol_splits[k]] and so on.
        symbols: as above.
        tree: the sequences.
        sums_paths: the sum over all paths that give out the sequence, not the best of them.

    Returns:
        (Q,) float64 natural logs, -inf for a sequence that the lattice has not; (Q, L) int64 arcs
        of the best path, not to be used where paths are summed.
    """
    scores = lattice.scores.astype(np.float64)
    return _values(
        lattice.layer_splits,
        lattice.row_splits,
        lattice.targets,
        scores,
        backward_scores(lattice.row_splits, lattice.targets, scores),
        symbol_splits,
        symbols,
        tree.splits,
        tree.symbols,
        tree.nodes,
        tree.ends,
        sums_paths,
    )


@compiled
def _walks(
    row_splits: _Array,
    targets: _Array,
    scores: _Array,
    backward: _Array,
    num_paths: int,
    num_layers: int,
) -> _Array:
    num_states = len(row_splits) - 1
    starts = np.zeros(len(targets))  # share of a state's paths that go by the arcs before
    for state in range(num_states):
        total = 0.0
        for k in range(row_splits[state], row_splits[state + 1]):
            starts[k] = total
            if backward[targets[k]] > -np.inf:
                total += np.exp(scores[k] + backward[targets[k]] - backward[state])
        for k in range(row_splits[state], row_splits[state + 1]):
            starts[k] /= max(total, 1e-300)
    paths = np.empty((num_paths, num_layers), dtype=np.int64)
    for i in range(num_paths):
        share = (i + 0.5) / num_paths
        state = 0
        for layer in range(num_layers):
            # The last arc that begins at or below the share, of those that lead to the end.
            chosen, end = -1, 1.0
            for k in range(row_splits[state], row_splits[state + 1]):
                if backward[targets[k]] == -np.inf:
                    continue
                if chosen >= 0 and starts[k] > share:
                    end = starts[k]
                    break
                chosen = k
            width = end - starts[chosen]
            # Rounding may leave a share at or beyond the end of the last arc.
            share = min(max((share - starts[chosen]) / width, 0.0), 1.0) if width > 0 else 0.0
            paths[i, layer] = chosen
            state = targets[chosen]
    return paths


@compiled
def _child(splits: _Array, symbols: _Array, nodes: _Array, node: int, symbol: int) -> int:
    for j in range(splits[node], splits[node + 1]):
        if symbols[j] == symbol:
            return int(nodes[j])
    return -1


@compiled
def _values(
    layer_splits: _Array,
    row_splits: _Array,
    targets: _Array,
    scores: _Array,
    backward: _Array,
    symbol_splits: _Array,
    symbols: _Array,
    child_splits: _Array,
    child_symbols: _Array,
    child_nodes: _Array,
    ends: _Array,
    sums_paths: bool,
) -> tuple[_Array, _Array]:
    """Layer by layer over pairs (state of the lattice, node of the tree)."""
    num_layers = len(layer_splits) - 2
    num_nodes = len(child_splits) - 1
    room = 256
    states, nodes = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.int64)
    values = np.zeros(room)
    before, by_arc = np.full(room, -1, dtype=np.int64), np.full(room, -1, dtype=np.int64)
    begin, end = 0, 1
    for _ in range(num_layers):
        most = 0
        for p in range(begin, end):
            most += row_splits[states[p] + 1] - row_splits[states[p]]
        if end + most > room:
            room = 2 * (end + most)
            states, nodes = _grown_int(states, room), _grown_int(nodes, room)
            before, by_arc = _grown_int(before, room), _grown_int(by_arc, room)
            larger = np.empty(room)
            larger[:end] = values[:end]
            values = larger
        capacity, shift = 16, np.uint64(60)
        while capacity < 2 * most:
            capacity *= 2
            shift -= np.uint64(1)
        table = np.full(capacity, _NO_SLOT, dtype=np.int64)
        count = end
        for p in range(begin, end):
            for k in range(row_splits[states[p]], row_splits[states[p] + 1]):
                target = targets[k]
                if backward[target] == -np.inf:
                    continue
                node = nodes[p]
                for j in range(symbol_splits[k], symbol_splits[k + 1]):
                    node = _child(child_splits, child_symbols, child_nodes, node, symbols[j])
                    if node < 0:
                        break
                if node < 0:
                    continue
                value = values[p] + scores[k]
                key = target * num_nodes + node
                place = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
                slot = table[place]
                while slot != _NO_SLOT and (states[slot] != target or nodes[slot] != node):
                    place = (place + 1) & (capacity - 1)
                    slot = table[place]
                if slot == _NO_SLOT:
                    slot = count
                    table[place] = count
                    states[count], nodes[count] = target, node
                    values[count] = value
                    before[count], by_arc[count] = p, k
                    count += 1
                elif sums_paths:
                    values[slot] = log_add(values[slot], value)
                elif value > values[slot]:
                    values[slot] = value
                    before[slot], by_arc[slot] = p, k
        begin, end = end, count

    last_pair = np.full(num_nodes, -1, dtype=np.int64)
    for p in range(begin, end):
        last_pair[nodes[p]] = p
    totals = np.full(len(ends), -np.inf)
    paths = np.full((len(ends), num_layers), -1, dtype=np.int64)
    for q in range(len(ends)):
        p = last_pair[ends[q]]
        if p < 0:
            continue
        totals[q] = values[p]
        for layer in range(num_layers - 1, -1, -1):
            paths[q, layer] = by_arc[p]
            p = before[p]
    return totals, paths


@compiled
def _grown_int(array: _Array, room: int) -> _Array:
    larger = np.empty(room, dtype=np.int64)
    larger[: len(array)] = array
    return larger
