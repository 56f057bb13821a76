"""Which states of a graph search live on after one more frame?

A state is a pair (context, graph state). From every active state leads an arc that takes blank and
stays, and one for each arc of the graph. Arcs that fall behind are dropped; of the states they
lead to the best stay, then of their contexts the best. A state's score is that of its best arc.

Invariant: streams do not see one another; ties go to the smaller (context, graph state), and
among the arcs into a state to the first.

Source: k2's rnnt_decode, described in arXiv 2211.00484.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.graph_pruning import best_states, with_best_contexts

__all__ = [
    "BLANK_ARC",
    "FINAL_ARC",
    "Active",
    "GraphArrays",
    "KeptArcs",
    "advance",
    "distinct_contexts",
    "grown",
]

_Array = npt.NDArray[Any]

# Stand for numbers of graph arcs.
BLANK_ARC: Final = -1
FINAL_ARC: Final = -2  # into the super-final state, which has the highest number

_NO_SLOT: Final = -1


class GraphArrays(NamedTuple):
    """A `DecodingGraph` as the compiled loops take it; see there."""

    row_splits: _Array
    dst: _Array
    labels: _Array
    scores: _Array
    final_scores: _Array
    has_words: _Array  # (A,) bool
    has_distinct_arcs: bool  # no two arcs of a state share token and target, none is epsilon


class Active(NamedTuple):
    """Active states of N streams, those of a stream together and sorted.

    Attributes:
        splits: (N + 1,) int64; states of stream n are splits[n] to splits[n + 1].
        contexts: (A,) int64 codes.
        graph_states: (A,) int32.
        scores: (A,) float64, natural logs.
        sources: (A,) int32, state of the frame before that the best arc came from, counted over
            all streams.
        arcs: (A,) int32, that arc's number in the graph, or BLANK_ARC.
    """

    splits: _Array
    contexts: _Array
    graph_states: _Array
    scores: _Array
    sources: _Array
    arcs: _Array


class KeptArcs(NamedTuple):
    """All arcs that lead into the states that live on; empty unless asked for.

    Attributes:
        splits: (N + 1,) int64; arcs of stream n.
        sources: (K,) int32, active state of the frame before, counted within its stream.
        targets: (K,) int32, active state after the frame, counted within its stream.
        arcs: (K,) int32, number in the graph, BLANK_ARC or FINAL_ARC.
        tokens: (K,) int32, token taken; 0 if none is.
        scores: (K,) float32, arc and frame together.
        token_logprobs: (K,) float32, the frame's part alone; 0 where no token is taken.
    """

    splits: _Array
    sources: _Array
    targets: _Array
    arcs: _Array
    tokens: _Array
    scores: _Array
    token_logprobs: _Array


@compiled
def _arc(
    graph: GraphArrays,
    g: int,
    k: int,
    first: int,
    stop: int,
    logprobs: _Array,
    blank_id: int,
) -> tuple[int, int, int, float, float]:
    """The k-th arc that leaves graph state g, whose arcs are `first` to `stop`.

    Returns:
        its number, token, target and score, and what of it is compared with the beam.
    """
    blank = logprobs[blank_id]
    if k < first:
        return BLANK_ARC, 0, g, blank, np.inf
    if k == stop:
        # k2's: blank's score counts, but is not looked at in the beam.
        final_score = graph.final_scores[g]
        return FINAL_ARC, 0, len(graph.final_scores), final_score + blank, final_score
    label, target = graph.labels[k], graph.dst[k]
    if label == 0:
        # k2's: an epsilon takes a frame as blank does, and is never dropped here.
        return k, 0, target, graph.scores[k] + blank, np.inf
    score = graph.scores[k] + logprobs[label]
    return k, label, target, score, score


@compiled
def _place(
    table: _Array,
    slot_contexts: _Array,
    slot_states: _Array,
    context: int,
    state: int,
    shift: Any,
) -> Any:
    """Where in the hash table, 2^(64 - shift) places long, a state has its slot or may have it."""
    # Fibonacci hashing: the high bits of a product by an odd number.
    mixed = np.uint64(context) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed += np.uint64(state) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> shift)
    slot = table[place]
    while slot != _NO_SLOT and (slot_contexts[slot] != context or slot_states[slot] != state):
        place = (place + 1) & (len(table) - 1)
        slot = table[place]
    return place


@compiled
def _least_score(
    graph: GraphArrays, g: int, score: float, logprobs: _Array, max_states: int, room: _Array
) -> float:
    """A score that max_states states reach for sure, so that what is below need not be looked at.

    The arcs of one state lead to different states each; those of the best one will do.
    """
    first, stop = graph.row_splits[g], graph.row_splits[g + 1]
    if stop - first < max_states:
        return -np.inf
    scores = room[: stop - first]
    for k in range(first, stop):
        added = graph.scores[k] + logprobs[graph.labels[k]]
        scores[k - first] = score + added
    return float(np.partition(scores, len(scores) - max_states)[len(scores) - max_states])


@compiled
def advance(
    graph: GraphArrays,
    active: Active,
    is_live: _Array,
    rows: _Array,
    logprobs: _Array,
    token_logprobs: _Array,
    blank_id: int,
    beam: float,
    max_states: int,
    max_contexts: int,
    bits: int,
    mask: int,
    counts_final: bool,
    keeps_arcs: bool,
) -> tuple[Active, KeptArcs]:
    """One frame.

    Args:
        graph: the graph.
        active: states of N streams.
        is_live: (N,) bool; the others stay as they are and keep no arcs.
        rows: (A,) int64, row of `logprobs` that belongs to a state's context.
        logprobs: (R, V) float32, what is searched with.
        token_logprobs: (R, V) float32, what is told of a token's probability.
        blank_id: column of the arc that stays.
        beam: largest distance to the best, in nats.
        max_states: most states a stream; 0 for no limit.
        max_contexts: most contexts a stream; 0 for no limit.
        bits: of a token in a context's code.
        mask: of the tokens of a context that stay when one more is added.
        counts_final: the original's: reaching the super-final state is an arc of its own and takes
            part in the pruning.
        keeps_arcs: give all arcs, not the best ones only.
    """
    num_streams = len(is_live)
    num_graph_states = len(graph.final_scores)

    # As many candidates as arcs leave a stream's states.
    most = 1
    bound = 0
    for n in range(num_streams):
        count = 0
        for i in range(active.splits[n], active.splits[n + 1]):
            g = active.graph_states[i]
            if g < num_graph_states:
                count += 2 + graph.row_splits[g + 1] - graph.row_splits[g]
        most = max(most, count)
        if not is_live[n]:
            count = active.splits[n + 1] - active.splits[n]
        elif max_states > 0:
            count = min(count, max_states)
        bound += count
    capacity = 16
    while capacity < 2 * most:
        capacity *= 2
    shift = np.uint64(64)
    size = capacity
    while size > 1:
        size //= 2
        shift -= np.uint64(1)

    table = np.empty(capacity, dtype=np.int32)
    slot_contexts = np.empty(most, dtype=np.int64)
    slot_states = np.empty(most, dtype=np.int32)
    slot_scores = np.empty(most, dtype=np.float64)
    slot_sources = np.empty(most, dtype=np.int32)
    slot_arcs = np.empty(most, dtype=np.int32)
    slot_targets = np.empty(most, dtype=np.int32)

    new_splits = np.zeros(num_streams + 1, dtype=np.int64)
    new_contexts = np.empty(bound, dtype=np.int64)
    new_states = np.empty(bound, dtype=np.int32)
    new_scores = np.empty(bound, dtype=np.float64)
    new_sources = np.empty(bound, dtype=np.int32)
    new_arcs = np.empty(bound, dtype=np.int32)
    num_new = 0

    kept_splits = np.zeros(num_streams + 1, dtype=np.int64)
    kept_sources = np.empty(64, dtype=np.int32)
    kept_targets = np.empty(64, dtype=np.int32)
    kept_arcs = np.empty(64, dtype=np.int32)
    kept_tokens = np.empty(64, dtype=np.int32)
    kept_scores = np.empty(64, dtype=np.float32)
    kept_logprobs = np.empty(64, dtype=np.float32)
    num_kept = 0

    for n in range(num_streams):
        begin, end = active.splits[n], active.splits[n + 1]
        if not is_live[n]:
            for i in range(begin, end):
                new_contexts[num_new] = active.contexts[i]
                new_states[num_new] = active.graph_states[i]
                new_scores[num_new] = active.scores[i]
                new_sources[num_new] = i
                new_arcs[num_new] = BLANK_ARC
                num_new += 1
            new_splits[n + 1] = num_new
            kept_splits[n + 1] = num_kept
            continue

        # 1. Arcs, and the states they lead to.
        best = -np.inf
        best_source = begin
        for i in range(begin, end):
            if active.scores[i] > best:
                best, best_source = active.scores[i], i
        floor = best - beam
        least = -np.inf
        if graph.has_distinct_arcs and max_states > 0:
            least = _least_score(
                graph,
                active.graph_states[best_source],
                best,
                logprobs[rows[best_source]],
                max_states,
                slot_scores,
            )
        table[:] = _NO_SLOT
        num_slots = 0
        for i in range(begin, end):
            g = active.graph_states[i]
            if g == num_graph_states:
                continue  # nothing follows the end
            context, score, row = active.contexts[i], active.scores[i], rows[i]
            first, stop = graph.row_splits[g], graph.row_splits[g + 1]
            is_final = counts_final and graph.final_scores[g] > -np.inf
            for k in range(first - 1, stop + (1 if is_final else 0)):
                arc, label, target, arc_score, compared = _arc(
                    graph, g, k, first, stop, logprobs[row], blank_id
                )
                new_score = score + arc_score
                if new_score < least or score + compared < floor or new_score == -np.inf:
                    continue
                target_context = context
                if label != 0:
                    target_context = ((context & mask) << bits) + label + 1
                place = _place(table, slot_contexts, slot_states, target_context, target, shift)
                slot = table[place]
                if slot == _NO_SLOT:
                    slot = num_slots
                    num_slots += 1
                    table[place] = slot
                    slot_contexts[slot] = target_context
                    slot_states[slot] = target
                    slot_scores[slot] = -np.inf
                if new_score > slot_scores[slot]:
                    slot_scores[slot] = new_score
                    slot_sources[slot] = i
                    slot_arcs[slot] = arc

        # 2. The best states, then the best contexts.
        chosen = best_states(slot_scores[:num_slots], slot_contexts, slot_states, beam, max_states)
        chosen = with_best_contexts(chosen, slot_scores, slot_contexts, beam, max_contexts)
        slot_targets[:num_slots] = _NO_SLOT
        for j in range(len(chosen)):
            slot = chosen[j]
            new_contexts[num_new] = slot_contexts[slot]
            new_states[num_new] = slot_states[slot]
            new_scores[num_new] = slot_scores[slot]
            new_sources[num_new] = slot_sources[slot]
            new_arcs[num_new] = slot_arcs[slot]
            num_new += 1
            slot_targets[slot] = j
        new_splits[n + 1] = num_new

        # 3. All arcs into them, also those too bad to be looked at above.
        for i in range(begin, end if keeps_arcs else begin):
            g = active.graph_states[i]
            if g == num_graph_states:
                continue
            context, score, row = active.contexts[i], active.scores[i], rows[i]
            first, stop = graph.row_splits[g], graph.row_splits[g + 1]
            is_final = counts_final and graph.final_scores[g] > -np.inf
            if num_kept + stop - first + 2 > len(kept_sources):
                room = 2 * (num_kept + stop - first + 2)
                kept_sources = grown(kept_sources, room)
                kept_targets = grown(kept_targets, room)
                kept_arcs = grown(kept_arcs, room)
                kept_tokens = grown(kept_tokens, room)
                kept_scores = grown(kept_scores, room)
                kept_logprobs = grown(kept_logprobs, room)
            for k in range(first - 1, stop + (1 if is_final else 0)):
                arc, label, target, arc_score, compared = _arc(
                    graph, g, k, first, stop, logprobs[row], blank_id
                )
                if score + compared < floor or arc_score == -np.inf:
                    continue
                target_context = context
                if label != 0:
                    target_context = ((context & mask) << bits) + label + 1
                place = _place(table, slot_contexts, slot_states, target_context, target, shift)
                slot = table[place]
                if slot == _NO_SLOT or slot_targets[slot] == _NO_SLOT:
                    continue
                kept_sources[num_kept] = i - begin
                kept_targets[num_kept] = slot_targets[slot]
                kept_arcs[num_kept] = arc
                kept_tokens[num_kept] = label
                kept_scores[num_kept] = arc_score
                kept_logprobs[num_kept] = token_logprobs[row, label] if label != 0 else 0.0
                num_kept += 1
        kept_splits[n + 1] = num_kept

    return (
        Active(
            new_splits,
            new_contexts[:num_new],
            new_states[:num_new],
            new_scores[:num_new],
            new_sources[:num_new],
            new_arcs[:num_new],
        ),
        KeptArcs(
            kept_splits,
            kept_sources[:num_kept],
            kept_targets[:num_kept],
            kept_arcs[:num_kept],
            kept_tokens[:num_kept],
            kept_scores[:num_kept],
            kept_logprobs[:num_kept],
        ),
    )


@compiled
def distinct_contexts(
    splits: _Array, contexts: _Array, is_wanted: _Array
) -> tuple[_Array, _Array, _Array]:
    """The contexts of the wanted streams, each once a stream.

    Args:
        splits: (N + 1,) and
        contexts: (A,) of `Active`.
        is_wanted: (N,) bool.

    Returns:
        (A,) int64 which of the R contexts a state has (0 in other streams), (R,) int64 codes, (R,)
        int64 their streams.
    """
    rows = np.zeros(len(contexts), dtype=np.int64)
    codes = np.empty(len(contexts), dtype=np.int64)
    streams = np.empty(len(contexts), dtype=np.int64)
    count = 0
    for n in range(len(is_wanted)):
        if not is_wanted[n]:
            continue
        for i in range(splits[n], splits[n + 1]):
            if i == splits[n] or contexts[i] != contexts[i - 1]:
                codes[count] = contexts[i]
                streams[count] = n
                count += 1
            rows[i] = count - 1
    return rows, codes[:count], streams[:count]


@compiled
def grown(array: _Array, room: int) -> _Array:
    """The same array with more room behind it."""
    larger = np.empty(room, dtype=array.dtype)
    larger[: len(array)] = array
    return larger
