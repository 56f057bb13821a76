"""Graph searches, against the joiner's own work: as many rows, 512 x 500, with log-softmax.

The yardstick asks for the rows frame by frame, as any search has to. "Peaky" sounds like a trained
model: nearly every frame is clear; "flat" sounds like noise, where most histories survive.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.method import SearchMethod, search_whole
from snowmelt.search.nbest import NbestSearch
from snowmelt.search.scorer import FloatArray, IntArray
from snowmelt.text.graph import DecodingGraph, graph_from_k2_arcs

__all__ = ["benchmarks"]

_V, _J, _C = 500, 512, 2
# Eight utterances of 10 s.
_N, _T = 8, 250


class _Scorer:
    """A joiner of full size with random weights and a prediction network of two tables."""

    context_size = _C
    blank_id = 0
    unk_id = 2

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._tables = torch.randn(_C, _V + 1, _J, generator=generator) * 0.5
        self._proj = torch.randn(_J, _J, generator=generator) / _J**0.5
        self.weight = torch.randn(_V, _J, generator=generator) / _J**0.5
        self.num_rows: list[int] = []

    def decode(self, contexts: IntArray) -> FloatArray:
        tokens = torch.from_numpy(contexts) + 1
        with torch.inference_mode():
            out = self._tables[0, tokens[:, 0]] + self._tables[1, tokens[:, 1]]
            result: FloatArray = (torch.relu(out) @ self._proj.T).numpy()
        return result

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        self.num_rows.append(len(encoder_proj))
        with torch.inference_mode():
            hidden = torch.tanh(torch.from_numpy(encoder_proj) + torch.from_numpy(decoder_proj))
            result: FloatArray = (hidden @ self.weight.T).numpy()
        return result


@cache
def _sound(scorer: _Scorer, sharpness: float) -> tuple[FloatArray, IntArray]:
    """Frames that point at a token, blank three times of four."""
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random((_N, _T)) < 0.75, 0, rng.integers(3, _V, (_N, _T)))
    weight = scorer.weight.numpy()
    frames = sharpness * weight[tokens] + 0.3 * rng.normal(size=(_N, _T, _J))
    return frames.astype(np.float32), np.full(_N, _T, dtype=np.int64)


@cache
def _word_graph() -> DecodingGraph:
    """5,000 words of one to four tokens and a bigram-like loop: 16 histories share a trie each."""
    rng = np.random.default_rng(0)
    arcs: list[tuple[int, int, int]] = []
    scores: list[float] = []
    words: list[int] = []
    num_states = 16
    tries: list[dict[int, dict[int, int]]] = [{} for _ in range(16)]
    for word in range(1, 5001):
        tokens = rng.integers(3, _V, size=rng.integers(1, 5)).tolist()
        state, trie = word % 16, tries[word % 16]
        target = int(rng.integers(16))
        for i, token in enumerate(tokens):
            is_last = i == len(tokens) - 1
            if not is_last and token in trie.get(state, {}):
                state = trie[state][token]
                continue
            next_state = target if is_last else num_states
            if not is_last:
                trie.setdefault(state, {})[token] = next_state
                num_states += 1
            arcs.append((state, next_state, token))
            scores.append(-float(rng.exponential(3.0)))
            words.append(word if is_last else 0)
            state = next_state
    arcs += [(state, num_states, -1) for state in range(16)]
    scores += [-2.0] * 16
    words += [0] * 16
    return graph_from_k2_arcs(
        np.array(arcs),
        np.array(scores, dtype=np.float32),
        np.arange(len(words) + 1),
        np.array(words),
    )


def benchmarks() -> dict[str, Callable[[], object]]:
    """Name -> what is measured."""
    scorer = _Scorer()
    one_best = FastBeamSearch(beam=20.0, max_contexts=8, max_states=64)
    graph = _word_graph().with_scale(0.1)
    on_words = FastBeamSearch(graph=graph, beam=20.0, max_contexts=8, max_states=64)
    with_lattice = FastBeamSearch(
        graph=graph, beam=20.0, max_contexts=8, max_states=64, keeps_lattice=True
    )
    searches: dict[str, SearchMethod[object]] = {
        "fast_beam_search": one_best,
        "fast_beam_search_LG": on_words,
        "fast_beam_search_nbest": NbestSearch(FastBeamSearch(keeps_lattice=True)),
        "fast_beam_search_nbest_LG": NbestSearch(with_lattice, sums_paths=True),
    }
    result: dict[str, Callable[[], object]] = {}
    for kind, sharpness in (("peaky", 30.0), ("flat", 5.0)):
        sound = _sound(scorer, sharpness)
        for name, search in searches.items():
            scorer.num_rows = []
            search_whole(search, scorer, *sound)
            rows = list(scorer.num_rows)
            title = f"graph search, {name}, {kind}, N {_N}, T {_T}"
            result[title] = lambda search=search, sound=sound: search_whole(  # type: ignore[misc]
                search, scorer, *sound
            )
            result[f"{title}: its {sum(rows)} joiner rows alone"] = (
                lambda rows=rows: _joiner_rows(scorer, rows)  # type: ignore[misc]
            )
    return result


def _joiner_rows(scorer: _Scorer, num_rows: list[int]) -> None:
    """The matrix products and log-softmax of a search, and nothing else."""
    hidden = torch.zeros(max(num_rows), _J)
    with torch.inference_mode():
        for num in num_rows:
            torch.log_softmax(hidden[:num] @ scorer.weight.T, dim=-1)
