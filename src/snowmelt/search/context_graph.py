"""Which bonus does a token earn because it goes on with a phrase that is expected?

The phrases form a tree of tokens. Every token that follows a phrase earns a bonus at once, so that
the phrase survives in the beam; when the phrase is not completed, all of it is taken back. What a
token sequence has earned in the end is the bonus of the phrases found in it: from left to right,
the longest at each place, none overlapping another.

Invariant: a state is one integer, and the score of a sequence depends on its tokens only. Knows no
search and no text.

Source: icefall, icefall/context_graph.py, for the rules "icefall" and "icefall_strict".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled

__all__ = ["ContextGraph", "ContextTables", "Rule", "advance_context", "build_context_graph"]

# "longest": see above. "icefall": once a phrase is complete, matching begins anew, so that a
# phrase hides every longer one that begins with it. "icefall_strict": every phrase that ends
# anywhere counts, also inside another (keyword spotting).
Rule = Literal["longest", "icefall", "icefall_strict"]

_ROOT: Final = 0

_Ints = npt.NDArray[np.int32]
_Floats = npt.NDArray[np.float64]


class ContextTables(NamedTuple):
    """The tree as arrays, for compiled loops; S nodes, node 0 is the root.

    Attributes:
        child_splits: (S + 1,) children of node s are child_splits[s] to child_splits[s + 1].
        child_tokens: (S - 1,) token of each child, ascending within a node.
        child_nodes: (S - 1,) the child.
        token_scores: (S,) bonus of the token that leads to a node from its parent.
        node_scores: (S,) what has been granted on the way from the root.
        falls: (S,) where matching goes on when no child fits.
        kept: (S,) what stays earned then.
        landings: (S,) state after arriving at a node.
        landing_scores: (S,) what arriving there adds.
        final_scores: (S,) what the end adds: minus all that was granted for nothing.
    """

    child_splits: _Ints
    child_tokens: _Ints
    child_nodes: _Ints
    token_scores: _Floats
    node_scores: _Floats
    falls: _Ints
    kept: _Floats
    landings: _Ints
    landing_scores: _Floats
    final_scores: _Floats


@dataclass(frozen=True)
class ContextGraph:
    """Expected phrases; made by `build_context_graph`. A fresh state is 0.

    Attributes:
        tables: what the searches read.
        matched_lens: (S,) tokens of the longest phrase that ends in a state, 0 if none does.
    """

    tables: ContextTables
    matched_lens: _Ints

    @property
    def num_nodes(self) -> int:
        """Nodes without the root."""
        return len(self.matched_lens) - 1

    def step(self, state: int, token: int) -> tuple[float, int]:
        """What a token adds to the score, and the state after it."""
        return advance_context(self.tables, state, token)

    def final_score(self, state: int) -> float:
        """What the end of the tokens adds to the score."""
        return float(self.tables.final_scores[state])


@compiled
def advance_context(tables: ContextTables, state: int, token: int) -> tuple[float, int]:
    """See `ContextGraph.step`."""
    score, node, has_fallen = 0.0, state, False
    while True:
        first, stop = tables.child_splits[node], tables.child_splits[node + 1]
        place = first + np.searchsorted(tables.child_tokens[first:stop], token)
        if place < stop and tables.child_tokens[place] == token:
            child = tables.child_nodes[place]
            if has_fallen:
                score += tables.node_scores[child] - tables.node_scores[node]
            else:
                score += tables.token_scores[child]
            node = tables.landings[child]
            return score + tables.landing_scores[child], node
        if node == _ROOT:
            return score, node
        fall = tables.falls[node]
        score += tables.kept[node] + tables.node_scores[fall] - tables.node_scores[node]
        node, has_fallen = fall, True


def build_context_graph(
    phrases: Sequence[Sequence[int]], scores: Sequence[float], *, rule: Rule = "longest"
) -> ContextGraph:
    """Build the tree of all phrases.

    Args:
        phrases: token ids; none is empty. A phrase that comes twice has the higher score.
        scores: bonus per token, one a phrase.
        rule: what a completed phrase means for what follows.
    """
    tree = _Tree()
    for phrase, score in zip(phrases, scores, strict=True):
        tree.add(phrase, score)
    if rule == "longest":
        # A later phrase may have raised tokens at the front of earlier ones.
        tree.renew_node_scores()
    order = tree.by_level()
    fails = tree.fails(order)
    outputs = tree.outputs(order, fails)
    if rule == "longest":
        falls, kept = tree.longest_falls(order)
    else:
        falls, kept = fails, [0.0] * len(fails)
    size = len(tree.children)
    landings, landing_scores = list(range(size)), [0.0] * size
    for node in order:
        if rule == "icefall_strict" and outputs[node] != _ROOT:
            # All phrases that end here: the longest, and those that end its path in turn.
            shorter = outputs[fails[outputs[node]]]
            landing_scores[node] = tree.node_scores[outputs[node]] + landing_scores[shorter]
        elif rule == "icefall" and outputs[node] != _ROOT:
            landings[node] = _ROOT
            landing_scores[node] = tree.node_scores[outputs[node]] - tree.node_scores[node]
    final_scores = [0.0] * size
    for node in order:
        if rule == "longest":
            final_scores[node] = (
                kept[node]
                + (tree.node_scores[falls[node]] - tree.node_scores[node])
                + final_scores[falls[node]]
            )
        else:
            final_scores[node] = -tree.node_scores[node]
    return ContextGraph(
        ContextTables(
            *tree.child_arrays(),
            np.array(tree.token_scores),
            np.array(tree.node_scores),
            np.array(falls, dtype=np.int32),
            np.array(kept),
            np.array(landings, dtype=np.int32),
            np.array(landing_scores),
            np.array(final_scores),
        ),
        matched_lens=np.array([tree.levels[output] for output in outputs], dtype=np.int32),
    )


class _Tree:
    """The phrases while the graph is built; lists have one entry a node."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.parents = [_ROOT]
        self.tokens = [-1]
        self.levels = [0]
        self.token_scores = [0.0]
        self.node_scores = [0.0]
        self.is_end = [False]

    def add(self, phrase: Sequence[int], score: float) -> None:
        node = _ROOT
        for token in phrase:
            child = self.children[node].get(token)
            if child is None:
                child = len(self.children)
                self.children[node][token] = child
                self.children.append({})
                self.parents.append(node)
                self.tokens.append(token)
                self.levels.append(self.levels[node] + 1)
                self.token_scores.append(score)
                self.node_scores.append(0.0)
                self.is_end.append(False)
            else:
                self.token_scores[child] = max(self.token_scores[child], score)
            self.node_scores[child] = self.node_scores[node] + self.token_scores[child]
            node = child
        self.is_end[node] = True

    def by_level(self) -> list[int]:
        """All nodes but the root, those near it first."""
        return sorted(range(1, len(self.children)), key=lambda node: self.levels[node])

    def renew_node_scores(self) -> None:
        for node in self.by_level():
            self.node_scores[node] = self.node_scores[self.parents[node]] + self.token_scores[node]

    def fails(self, order: Sequence[int]) -> list[int]:
        """The longest other node whose path ends a node's path (Aho and Corasick)."""
        fails = [_ROOT] * len(self.children)
        for node in order:
            if self.parents[node] == _ROOT:
                continue
            fail = fails[self.parents[node]]
            while fail != _ROOT and self.tokens[node] not in self.children[fail]:
                fail = fails[fail]
            fails[node] = self.children[fail].get(self.tokens[node], _ROOT)
        return fails

    def outputs(self, order: Sequence[int], fails: Sequence[int]) -> list[int]:
        """Last node of the longest phrase that ends a node's path; the root if there is none."""
        outputs = [_ROOT] * len(self.children)
        for node in order:
            outputs[node] = node if self.is_end[node] else outputs[fails[node]]
        return outputs

    def longest_falls(self, order: Sequence[int]) -> tuple[list[int], list[float]]:
        """Where matching goes on when a node's path cannot, and what stays earned.

        If a phrase is complete on the path, the longest of them stays and matching begins anew
        behind it; otherwise it begins anew behind the first token. The tokens in between were
        heard already: they are matched again, from the root.
        """
        falls, kept = [_ROOT] * len(self.children), [0.0] * len(self.children)
        for node in order:
            path: list[int] = []
            end = node
            while end != _ROOT and not self.is_end[end]:
                path.insert(0, self.tokens[end])
                end = self.parents[end]
            kept[node] = self.node_scores[end]
            state = _ROOT
            for token in path[1:] if end == _ROOT else path:
                while token not in self.children[state] and state != _ROOT:
                    kept[node] += kept[state]
                    state = falls[state]
                state = self.children[state].get(token, _ROOT)
            falls[node] = state
        return falls, kept

    def child_arrays(self) -> tuple[_Ints, _Ints, _Ints]:
        pairs = [sorted(children.items()) for children in self.children]
        splits = np.cumsum([0, *map(len, pairs)])
        tokens = [token for own in pairs for token, _ in own]
        nodes = [node for own in pairs for _, node in own]
        return splits.astype(np.int32), np.array(tokens, np.int32), np.array(nodes, np.int32)
