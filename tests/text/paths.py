"""Slow and plain ways through a decoding graph, to check the graph (and not a search) with."""

from collections.abc import Iterator, Sequence

import numpy as np

from snowmelt.text.graph import DecodingGraph

__all__ = ["active_states", "best_path"]

Active = dict[int, tuple[float, tuple[int, ...]]]  # state -> best score, words of the best path


def active_states(graph: DecodingGraph, tokens: Sequence[int]) -> Iterator[Active]:
    """The states that can be reached, at the start and after every token."""
    active: Active = {0: (0.0, ())}
    yield active
    for token in tokens:
        after: Active = {}
        for state, (score, words) in active.items():
            for arc in range(int(graph.row_splits[state]), int(graph.row_splits[state + 1])):
                if graph.labels[arc] != token:
                    continue
                dst, total = int(graph.dst[arc]), score + float(graph.scores[arc])
                if dst not in after or total > after[dst][0]:
                    begin, end = graph.word_splits[arc : arc + 2]
                    after[dst] = (total, (*words, *graph.words[begin:end].tolist()))
        active = after
        yield active


def best_path(graph: DecodingGraph, tokens: Sequence[int]) -> tuple[float, tuple[int, ...]]:
    """Best score of a whole token sequence with its end, and the words; -inf: not accepted."""
    *_, last = active_states(graph, tokens)
    ends = [
        (score + float(graph.final_scores[state]), words) for state, (score, words) in last.items()
    ]
    return max(ends, default=(-np.inf, ()))
