"""Kinds search.*: searches over given encoder output. Built so far: greedy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.search.greedy import GreedySearch, GreedyState
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


def _scorer(run: Run) -> _Scorer:
    is_built = run.call in ("greedy_search", "greedy_search_batch") or _is_graph_search(run)
    if not is_built:
        pytest.skip(f"{run.id}: method {run.call} is not built yet")
    return _Scorer(*build_decoder_and_joiner(run), unk_id=run.params["unk_id"])


def _is_graph_search(run: Run) -> bool:
    return run.call.startswith("fast_beam_search")


def _offline(run: Run) -> dict[str, Any]:
    scorer = _scorer(run)
    inputs = run.inputs()
    encoder_proj = scorer.project(inputs["encoder_out"])
    lens = inputs["encoder_out_lens"].numpy()
    if _is_graph_search(run):
        return offline_graph_search(run, scorer, encoder_proj, lens)
    options = {
        name: run.params[name]
        for name in ("max_sym_per_frame", "blank_penalty")
        if name in run.params
    }
    search = GreedySearch(**options)
    if run.content.get("one_by_one"):
        states = [
            _searched(search, scorer, encoder_proj[n : n + 1, :length], lens[n : n + 1])[0]
            for n, length in enumerate(lens)
        ]
    else:
        states = _searched(search, scorer, encoder_proj, lens)
    return {
        "tokens": [list(state.tokens) for state in states],
        "timestamps": [list(state.timestamps) for state in states],
        "token_logits": [list(state.token_logits) for state in states],
    }


def _searched(
    search: GreedySearch, scorer: _Scorer, encoder_proj: FloatArray, lens: IntArray
) -> list[GreedyState]:
    return search.step(scorer, encoder_proj, lens, [search.init_state(scorer) for _ in lens])


def _streaming(run: Run) -> dict[str, Any]:
    scorer = _scorer(run)
    encoder_proj = scorer.project(run.inputs()["encoder_out"])
    if _is_graph_search(run):
        return streaming_graph_search(run, scorer, encoder_proj)
    num_streams, num_frames, _ = encoder_proj.shape
    chunk_frames = run.params["chunk_frames"]
    search = GreedySearch()
    states = [search.init_state(scorer) for _ in range(num_streams)]
    partial_results = []
    for start in range(0, num_frames, chunk_frames):
        chunk = encoder_proj[:, start : start + chunk_frames]
        lens = np.full(num_streams, chunk.shape[1], dtype=np.int64)
        states = search.step(scorer, chunk, lens, states)
        partial_results.append([list(state.tokens) for state in states])
    return {"partial_results": partial_results}


KINDS = {"search.offline": _offline, "search.streaming": _streaming}
