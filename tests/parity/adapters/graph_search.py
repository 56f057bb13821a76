"""The graph searches of kinds search.*: fast_beam_search and its relatives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np

from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.fast_beam_state import FastBeamState
from snowmelt.search.graph_advance import FINAL_ARC
from snowmelt.search.lattice import compat_lattice
from snowmelt.search.method import SearchResult
from snowmelt.search.nbest import NbestSearch, oracle
from snowmelt.search.scorer import FloatArray, IntArray, Scorer
from snowmelt.text.graph import DecodingGraph, graph_from_k2_arcs
from tests.parity.cases import Run

__all__ = ["offline_graph_search", "streaming_graph_search"]

_OPTIONS = (
    "beam",
    "max_contexts",
    "max_states",
    "temperature",
    "blank_penalty",
    "ilme_scale",
    "allow_partial",
)


def offline_graph_search(
    run: Run, scorer: Scorer, encoder_proj: FloatArray, lens: IntArray
) -> dict[str, Any]:
    search = _search(run)
    states = search.step(scorer, encoder_proj, lens, [search.init_state(scorer) for _ in lens])
    results = {}
    if run.call == "fast_beam_search_one_best":
        found = [search.result(scorer, state, is_final=True) for state in states]
        results["best_path_scores"] = [result.log_prob for result in found]
        results["lattice_log_scores"] = [_log_total(run, state) for state in states]
    else:
        nbest = NbestSearch(
            search,
            num_paths=run.params["num_paths"],
            nbest_scale=run.params["nbest_scale"],
            sums_paths=run.call == "fast_beam_search_nbest_LG",
        )
        if run.call == "fast_beam_search_nbest_oracle":
            references = run.inputs()["ref_texts"]
            hypotheses = [nbest.hypotheses(state) for state in states]
            found = [
                own[oracle([result.tokens for result in own], reference)]
                if own
                else search.empty_result()
                for own, reference in zip(hypotheses, references, strict=True)
            ]
            results["edit_distance"] = [
                kaldialign.edit_distance(reference, list(result.tokens))["total"]
                for reference, result in zip(references, found, strict=True)
            ]
        else:
            found = [nbest.result(scorer, state, is_final=True) for state in states]
    table = _word_table(run)
    return {
        **results,
        "tokens": [list(result.tokens) for result in found],
        "word_ids": [list(result.words or ()) for result in found],
        "words": [[table[word] for word in result.words or ()] for result in found],
        "timestamps": [
            list(result.timestamps if result.word_timestamps is None else result.word_timestamps)
            for result in found
        ],
    }


def streaming_graph_search(run: Run, scorer: Scorer, encoder_proj: FloatArray) -> dict[str, Any]:
    search = _search(run)
    num_streams, num_frames, _ = encoder_proj.shape
    states = [search.init_state(scorer) for _ in range(num_streams)]
    partial_results = []
    for start in range(0, num_frames, run.params["chunk_frames"]):
        chunk = encoder_proj[:, start : start + run.params["chunk_frames"]]
        lens = np.full(num_streams, chunk.shape[1], dtype=np.int64)
        states = search.step(scorer, chunk, lens, states)
        found = [search.result(scorer, state, is_final=False) for state in states]
        partial_results.append([_output(result) for result in found])
    return {"partial_results": partial_results}


def _search(run: Run) -> FastBeamSearch:
    options = {name: run.params[name] for name in _OPTIONS}
    return FastBeamSearch(
        graph=_graph(run), keeps_lattice=True, icefall_compat=run.compat, **options
    )


def _graph(run: Run) -> DecodingGraph | None:
    graph = run.content["graph"]
    if graph["type"] == "trivial":
        assert graph["max_token"] == run.params["vocab_size"] - 1
        return None
    tensors = run.case.other(graph["case"]).tensors
    names = ("arcs", "scores", "aux_row_splits", "aux_values")
    arcs, scores, splits, words = (tensors[graph[name]].numpy() for name in names)
    return graph_from_k2_arcs(arcs, scores, splits, words).with_scale(graph["ngram_lm_scale"])


def _log_total(run: Run, state: FastBeamState) -> float:
    """The log-sum over the original's lattice, whose final arcs may be several.

    Some states of k2's LG have more than one arc into the final state. Only the best of them can
    matter to a result, so a `DecodingGraph` has one; but the sum over all paths counts each.
    """
    lattice = compat_lattice(state.lattice, allow_partial=run.params["allow_partial"])
    graph = _graph(run)
    if graph is None or run.params["allow_partial"]:
        return lattice.log_total()
    case, names = run.case.other(run.content["graph"]["case"]), run.content["graph"]
    arcs = case.tensors[names["arcs"]].numpy()
    num_final_arcs = np.bincount(arcs[arcs[:, 2] == -1, 0], minlength=graph.num_states)
    sources = np.repeat(np.arange(lattice.num_states), np.diff(lattice.row_splits))
    graph_states = np.zeros(lattice.num_states, dtype=np.int64)
    scores = lattice.scores.astype(np.float64)
    for k, (source, target, arc) in enumerate(
        zip(sources, lattice.targets, lattice.arcs, strict=True)
    ):
        if arc == FINAL_ARC:
            if target == lattice.num_states - 1:
                scores[k] += np.log(num_final_arcs[graph_states[source]])
        else:
            graph_states[target] = graph_states[source] if arc < 0 else graph.dst[arc]
    return replace(lattice, scores=scores).log_total()


def _output(result: SearchResult) -> list[int]:
    return list(result.tokens if result.words is None else result.words)


def _word_table(run: Run) -> dict[int, str]:
    if "words_table" not in run.params:
        return {}
    path: Path = run.case.root / run.params["words_table"]
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {int(number): word for word, number in lines}
