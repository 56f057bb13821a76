"""Kinds search.*: searches over given encoder output, and graphs of hotwords.

Built here: greedy search, beam search, modified beam search.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.search.beam import BeamSearch
from snowmelt.search.context_graph import ContextGraph, Rule, build_context_graph
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchMethod, SearchResult
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.search.scorer import FloatArray, IntArray
from tests.parity.adapters.graph_search import offline_graph_search, streaming_graph_search
from tests.parity.adapters.transducer_parts import build_decoder_and_joiner
from tests.parity.cases import Run

__all__ = ["KINDS"]


class _Scorer:
    """Decoder and joiner of a case as the searches see them."""

    def __init__(self, decoder: Decoder, joiner: Joiner, unk_id: int | None) -> None:
        self.decoder = decoder
        self.joiner = joiner
        self.context_size = decoder.context_size
        self.blank_id = decoder.blank_id
        self.unk_id = unk_id

    @torch.no_grad()
    def decode(self, contexts: IntArray) -> FloatArray:
        decoder_out = self.decoder(torch.from_numpy(contexts), need_pad=False)
        projected: FloatArray = self.joiner.decoder_proj(decoder_out.squeeze(1)).numpy()
        return projected

    @torch.no_grad()
    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        logits: FloatArray = self.joiner(
            torch.from_numpy(encoder_proj), torch.from_numpy(decoder_proj), project_input=False
        ).numpy()
        return logits

    @torch.no_grad()
    def project(self, encoder_out: Tensor) -> FloatArray:
        projected: FloatArray = self.joiner.encoder_proj(encoder_out).numpy()
        return projected


def _offline(run: Run) -> dict[str, Any]:
    scorer = _scorer(run)
    inputs = run.inputs()
    encoder_proj = scorer.project(inputs["encoder_out"])
    lens = inputs["encoder_out_lens"].numpy()
    if run.call.startswith("fast_beam_search"):
        return offline_graph_search(run, scorer, encoder_proj, lens)
    search = _search(run)
    if run.content.get("one_by_one"):
        states = [
            _searched(search, scorer, encoder_proj[n : n + 1, :length], lens[n : n + 1])[0]
            for n, length in enumerate(lens)
        ]
    else:
        states = _searched(search, scorer, encoder_proj, lens)
    found = [search.result(scorer, state, is_final=True) for state in states]
    results: dict[str, Any] = {
        "tokens": [list(result.tokens) for result in found],
        "timestamps": [list(result.timestamps) for result in found],
        "log_probs": [result.log_prob for result in found],
    }
    if isinstance(search, GreedySearch):
        results["token_logits"] = [list(state.token_logits) for state in states]
    else:
        results["final_beams"] = [
            _beam(search.n_best(scorer, state, is_final=True)) for state in states
        ]
    return results


def _streaming(run: Run) -> dict[str, Any]:
    scorer = _scorer(run)
    encoder_proj = scorer.project(run.inputs()["encoder_out"])
    if run.call.startswith("fast_beam_search"):
        return streaming_graph_search(run, scorer, encoder_proj)
    search = _search(run)
    num_streams, num_frames, _ = encoder_proj.shape
    chunk_frames = run.params["chunk_frames"]
    states = [search.init_state(scorer) for _ in range(num_streams)]
    partial_results: list[Any] = []
    beams: list[Any] = []
    for start in range(0, num_frames, chunk_frames):
        chunk = encoder_proj[:, start : start + chunk_frames]
        lens = np.full(num_streams, chunk.shape[1], dtype=np.int64)
        states = search.step(scorer, chunk, lens, states)
        found = [search.result(scorer, state, is_final=False) for state in states]
        partial_results.append([list(result.tokens) for result in found])
        if isinstance(search, ModifiedBeamSearch):
            beams.append([_beam(search.n_best(scorer, s, is_final=False)) for s in states])
    return {"partial_results": partial_results, "beams": beams}


def _search(run: Run) -> SearchMethod[Any]:
    params = run.params
    options = {
        name: params[name]
        for name in ("max_sym_per_frame", "blank_penalty", "temperature", "beam")
        if name in params
    }
    if run.call in ("greedy_search", "greedy_search_batch"):
        return GreedySearch(**options, icefall_compat=run.compat)
    if run.call == "modified_beam_search":
        if "num_active_paths" in params:
            options["beam"] = params["num_active_paths"]
        if params.get("context_graph"):
            options["context_graph"] = _graph(params["context_graph"], "icefall")
        return ModifiedBeamSearch(**options, icefall_compat=run.compat)
    if run.call == "beam_search":
        return BeamSearch(**options, max_sym_per_frame=None, icefall_compat=run.compat)
    pytest.skip(f"{run.id}: method {run.call} is not built yet")


def _scorer(run: Run) -> _Scorer:
    return _Scorer(*build_decoder_and_joiner(run), unk_id=run.params["unk_id"])


def _searched(
    search: SearchMethod[Any], scorer: _Scorer, encoder_proj: FloatArray, lens: IntArray
) -> list[Any]:
    return search.step(scorer, encoder_proj, lens, [search.init_state(scorer) for _ in lens])


def _beam(hypotheses: Sequence[SearchResult]) -> list[dict[str, Any]]:
    """As the cases list them: the most probable first."""
    ranked = sorted(hypotheses, key=lambda result: -result.log_prob)
    return [{"tokens": list(r.tokens), "log_prob": r.log_prob} for r in ranked]


def _context_graph(run: Run) -> dict[str, Any]:
    rule: Rule = "icefall_strict" if run.params.get("strict_mode", True) else "icefall"
    graph = _graph(run.params, rule)
    if run.call == "build":
        return {"num_nodes": graph.num_nodes}
    loose = _graph(run.params, "icefall_strict")
    state = seen = 0
    scores: list[float] = []
    matched: list[int | None] = []
    for token in run.inputs()["tokens"]:
        # The original tells what was matched before it goes back to the root.
        _, seen = loose.step(state, token)
        score, state = graph.step(state, token)
        scores.append(score)
        matched.append(int(loose.matched_lens[seen]) or None)
    return {
        "scores": scores,
        "matched_length": matched,
        "final_score": graph.final_score(state),
        "is_matched": bool(graph.matched_lens[state] > 0),
    }


def _graph(params: dict[str, Any], rule: Rule) -> ContextGraph:
    scores = [score or params["context_score"] for score in params["scores"]]
    return build_context_graph(params["token_ids"], scores, rule=rule)


KINDS = {
    "search.offline": _offline,
    "search.streaming": _streaming,
    "search.context_graph": _context_graph,
}
