"""Which hypotheses of modified beam search survive one encoder frame?

Of every stream the best entries (hypothesis, token) are selected; equal token sequences become one
hypothesis with both probabilities.

Invariant: streams do not see one another; ties go to the earlier hypothesis, then the smaller id.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py,
modified_beam_search.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.compiled import compiled
from snowmelt.search.context_graph import ContextTables, advance_context
from snowmelt.search.prefix_tree import Ints, Tree, same_tokens
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["Beams", "advance_beams", "empty_beams"]


class Beams(NamedTuple):
    """The hypotheses of N streams, at most K each; those of a stream are its first counts[n].

    Attributes:
        counts: (N,) hypotheses.
        log_probs: (N, K) their scores.
        nodes: (N, K) their last record in the tree.
        num_tokens: (N, K) their lengths.
        codes: (N, K) their contexts as numbers, see `graph_contexts`.
        rows: (N, K) row of the context in the table of decoder outputs, -1 if not known yet.
        bonus_states: (N, K) state in the graph of hotwords.
        lm_origins: (N, K) row i of what is known of the language model, see `lm_hypotheses`; -1 - i
            if a token has come since.
    """

    counts: Ints
    log_probs: FloatArray
    nodes: Ints
    num_tokens: Ints
    codes: IntArray
    rows: IntArray
    bonus_states: Ints
    lm_origins: IntArray


def empty_beams(num_streams: int, beam: int, dtype: npt.DTypeLike) -> Beams:
    """Room for the hypotheses of N streams."""
    shape = (num_streams, beam)
    return Beams(
        counts=np.zeros(num_streams, np.int32),
        log_probs=np.zeros(shape, dtype),
        nodes=np.full(shape, -1, np.int32),
        num_tokens=np.zeros(shape, np.int32),
        codes=np.zeros(shape, np.int64),
        rows=np.zeros(shape, np.int64),
        bonus_states=np.zeros(shape, np.int32),
        lm_origins=np.zeros(shape, np.int64),
    )


@compiled
def advance_beams(
    beams: Beams,
    streams: IntArray,
    frames: IntArray,
    logprobs: FloatArray,
    skipped: IntArray,
    code_shift: int,
    code_mask: int,
    tree: Tree,
    tree_size: int,
    graph: ContextTables,
    lm_scores: FloatArray,
    late_bonus: bool,
) -> int:
    """Advance the hypotheses of some streams by one frame.

    Args:
        beams: hypotheses; those of `streams` are replaced.
        streams: (L,) which streams.
        frames: (L,) the frame's number in each stream.
        logprobs: (M, V) log-probability of every token, a row for every hypothesis of the streams.
        skipped: token ids that are not emitted.
        code_shift, code_mask: what makes a new context of one and a token.
        tree: receives the new records, there is room for L * K.
        tree_size: records there.
        graph: hotwords; a root alone if there are none.
        lm_scores: (M, V) what is added to the score of every entry; (0, V) for nothing.
        late_bonus: hotwords and `lm_scores` act on the next frame only, as in the original.

    Returns:
        the number of records after it.
    """
    beam = beams.log_probs.shape[1]
    vocab_size = logprobs.shape[1]
    has_graph = len(graph.child_nodes) > 0
    has_lm = len(lm_scores) > 0
    # A bonus may lift an entry into the beam: the best entries without it are looked at.
    width = 4 * beam if (has_graph or has_lm) and not late_bonus else beam
    scores = np.zeros(width, beams.log_probs.dtype)
    parents = np.zeros(width, np.int32)
    tokens = np.zeros(width, np.int32)
    bonus_states = np.zeros(width, np.int32)
    is_emission = np.zeros(width, np.bool_)
    sources = np.zeros(beam, np.int32)  # of the new hypotheses: the entry each was made of
    new_log_probs = np.zeros(beam, beams.log_probs.dtype)
    new_nodes = np.zeros(beam, np.int32)
    new_num_tokens = np.zeros(beam, np.int32)
    new_codes = np.zeros(beam, np.int64)
    new_rows = np.zeros(beam, np.int64)
    new_bonus_states = np.zeros(beam, np.int32)
    new_lm_origins = np.zeros(beam, np.int64)
    row = 0
    for place in range(len(streams)):
        n = streams[place]
        first_row = row
        count = 0
        for k in range(beams.counts[n]):
            log_prob = beams.log_probs[n, k]
            for v in range(vocab_size):
                score = logprobs[row, v] + log_prob
                if count < width:
                    i = count
                    count += 1
                elif score > scores[count - 1]:
                    i = count - 1
                else:
                    continue
                while i > 0 and scores[i - 1] < score:
                    scores[i], parents[i], tokens[i] = scores[i - 1], parents[i - 1], tokens[i - 1]
                    i -= 1
                scores[i], parents[i], tokens[i] = score, k, v
            row += 1
        for i in range(count):
            is_emission[i] = True
            for token in skipped:
                if tokens[i] == token:
                    is_emission[i] = False
            bonus_states[i] = beams.bonus_states[n, parents[i]]
            if has_graph and is_emission[i]:
                bonus, bonus_states[i] = advance_context(graph, bonus_states[i], tokens[i])
                scores[i] += bonus
            if has_lm:
                scores[i] += lm_scores[first_row + parents[i], tokens[i]]
        if width > beam:
            _sort(scores, parents, tokens, bonus_states, is_emission, count)
        num_new = 0
        for i in range(min(count, beam)):
            k = parents[i]
            twin = -1
            for j in range(num_new):
                if _are_equal(
                    beams,
                    n,
                    tree,
                    k,
                    tokens[i],
                    is_emission[i],
                    parents[sources[j]],
                    tokens[sources[j]],
                    is_emission[sources[j]],
                ):
                    twin = j
            if twin >= 0:
                new_log_probs[twin] = _log_add(new_log_probs[twin], scores[i])
                continue
            new_log_probs[num_new] = scores[i]
            new_bonus_states[num_new] = bonus_states[i]
            if is_emission[i]:
                tree.parents[tree_size] = beams.nodes[n, k]
                tree.tokens[tree_size] = tokens[i]
                tree.frames[tree_size] = frames[place]
                tree.logprobs[tree_size] = logprobs[first_row + k, tokens[i]]
                new_nodes[num_new] = tree_size
                tree_size += 1
                new_num_tokens[num_new] = beams.num_tokens[n, k] + 1
                new_codes[num_new] = ((beams.codes[n, k] << code_shift) & code_mask) + (
                    tokens[i] + 1
                )
                new_rows[num_new] = -1
                new_lm_origins[num_new] = -1 - beams.lm_origins[n, k]
            else:
                new_nodes[num_new] = beams.nodes[n, k]
                new_num_tokens[num_new] = beams.num_tokens[n, k]
                new_codes[num_new] = beams.codes[n, k]
                new_rows[num_new] = beams.rows[n, k]
                new_lm_origins[num_new] = beams.lm_origins[n, k]
            sources[num_new] = i
            num_new += 1
        beams.counts[n] = num_new
        beams.log_probs[n, :num_new] = new_log_probs[:num_new]
        beams.nodes[n, :num_new] = new_nodes[:num_new]
        beams.num_tokens[n, :num_new] = new_num_tokens[:num_new]
        beams.codes[n, :num_new] = new_codes[:num_new]
        beams.rows[n, :num_new] = new_rows[:num_new]
        beams.bonus_states[n, :num_new] = new_bonus_states[:num_new]
        beams.lm_origins[n, :num_new] = new_lm_origins[:num_new]
    return tree_size


@compiled
def _are_equal(
    beams: Beams,
    n: int,
    tree: Tree,
    k: int,
    token: int,
    emits: bool,
    other_k: int,
    other_token: int,
    other_emits: bool,
) -> bool:
    """Do two entries lead to the same tokens? The hypotheses they come from never are the same."""
    if emits == other_emits:
        # Two tokens that are not emitted (blank, <unk>), or two different ones that are.
        return k == other_k and not emits
    if other_emits:
        k, token, other_k = other_k, other_token, k
    # k emits, other_k does not.
    if beams.num_tokens[n, k] + 1 != beams.num_tokens[n, other_k]:
        return False
    last = beams.nodes[n, other_k]
    return tree.tokens[last] == token and same_tokens(tree, beams.nodes[n, k], tree.parents[last])


@compiled
def _sort(
    scores: FloatArray,
    parents: Ints,
    tokens: Ints,
    bonus_states: Ints,
    is_emission: npt.NDArray[np.bool_],
    count: int,
) -> None:
    """By score, the highest first; equal ones stay in their order."""
    for last in range(1, count):
        score, parent, token = scores[last], parents[last], tokens[last]
        state, emits = bonus_states[last], is_emission[last]
        i = last
        while i > 0 and scores[i - 1] < score:
            scores[i], parents[i], tokens[i] = scores[i - 1], parents[i - 1], tokens[i - 1]
            bonus_states[i], is_emission[i] = bonus_states[i - 1], is_emission[i - 1]
            i -= 1
        scores[i], parents[i], tokens[i] = score, parent, token
        bonus_states[i], is_emission[i] = state, emits


@compiled
def _log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    if b == -np.inf:  # also two of them, whose difference is nan
        return a
    return float(a + np.log1p(np.exp(b - a)))
