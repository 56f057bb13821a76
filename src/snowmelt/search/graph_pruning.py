"""Which of the states that were reached stay? The best, and of their contexts the best.

Invariant: ties go to the smaller (context, graph state), so no result depends on the order in
which states were reached.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled

__all__ = ["best_states", "with_best_contexts"]

_Array = npt.NDArray[Any]

_FEW: Final = 80  # so many are sorted quickest by insertion


@compiled
def best_states(
    scores: _Array, contexts: _Array, states: _Array, beam: float, max_states: int
) -> _Array:
    """Slots within the beam, the max_states best of them, sorted by context and state."""
    num_slots = len(scores)
    floor = -np.inf
    for slot in range(num_slots):
        floor = max(floor, scores[slot])
    floor -= beam
    chosen = np.empty(num_slots, dtype=np.int64)
    if 0 < max_states < num_slots:
        # The worst that has a place; several may share it, and then the first in order stay.
        worst = np.partition(scores, num_slots - max_states)[num_slots - max_states]
        count = 0
        for slot in range(num_slots):
            if scores[slot] > worst and scores[slot] >= floor:
                chosen[count] = slot
                count += 1
        if worst >= floor:
            num_free = 0
            for slot in range(num_slots):
                if scores[slot] > worst:
                    num_free -= 1
            num_free += max_states
            equal = np.empty(num_slots, dtype=np.int64)
            num_equal = 0
            for slot in range(num_slots):
                if scores[slot] == worst:
                    equal[num_equal] = slot
                    num_equal += 1
            equal = equal[:num_equal]
            if num_equal > num_free:
                _sort_slots(equal, contexts, states)
            for j in range(num_free):
                chosen[count] = equal[j]
                count += 1
    else:
        count = 0
        for slot in range(num_slots):
            if scores[slot] >= floor:
                chosen[count] = slot
                count += 1
    chosen = chosen[:count]
    _sort_slots(chosen, contexts, states)
    return chosen


@compiled
def with_best_contexts(
    chosen: _Array, scores: _Array, contexts: _Array, beam: float, max_contexts: int
) -> _Array:
    """Those of the chosen slots, sorted by context, whose context is among the best."""
    count = len(chosen)
    context_of = np.empty(count, dtype=np.int64)
    values = np.empty(count, dtype=np.float64)
    num_contexts = 0
    for j in range(count):
        slot = chosen[j]
        if j == 0 or contexts[slot] != contexts[chosen[j - 1]]:
            values[num_contexts] = -np.inf
            num_contexts += 1
        context_of[j] = num_contexts - 1
        values[num_contexts - 1] = max(values[num_contexts - 1], scores[slot])
    values = values[:num_contexts]
    if not 0 < max_contexts < num_contexts:
        return chosen  # all contexts hold a state within the beam
    worst = np.partition(values, num_contexts - max_contexts)[num_contexts - max_contexts]
    num_free = max_contexts
    for c in range(num_contexts):
        if values[c] > worst:
            num_free -= 1
    is_kept = np.zeros(num_contexts, dtype=np.bool_)
    for c in range(num_contexts):
        if values[c] > worst:
            is_kept[c] = True
        elif values[c] == worst and num_free > 0:
            is_kept[c] = True
            num_free -= 1
    kept = 0
    for j in range(count):
        if is_kept[context_of[j]]:
            chosen[kept] = chosen[j]
            kept += 1
    return chosen[:kept]


@compiled
def _sort_slots(slots: _Array, contexts: _Array, states: _Array) -> None:
    """Sort in place by context, then by graph state."""
    if len(slots) > _FEW:
        slots[:] = slots[np.argsort(states[slots], kind="mergesort")]
        slots[:] = slots[np.argsort(contexts[slots], kind="mergesort")]
        return
    for j in range(1, len(slots)):
        slot = slots[j]
        context, state = contexts[slot], states[slot]
        k = j
        while k > 0 and (
            contexts[slots[k - 1]] > context
            or (contexts[slots[k - 1]] == context and states[slots[k - 1]] > state)
        ):
            slots[k] = slots[k - 1]
            k -= 1
        slots[k] = slot
