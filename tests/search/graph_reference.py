"""fast_beam_search with dictionaries: as slow as it is plain, to check the compiled loops against.

A state is (context, graph state), a context a tuple of tokens. Written from the description of the
search (arXiv 2211.00484 and the behaviour of k2), not from the code under test.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from snowmelt.search.scorer import FloatArray, Scorer
from snowmelt.text.graph import DecodingGraph

State = tuple[tuple[int, ...], int]


@dataclass
class Arc:
    source: State
    target: State
    arc: int  # of the graph; -1 blank, -2 final
    token: int
    score: float


@dataclass
class Reference:
    """One utterance."""

    scorer: Scorer
    graph: DecodingGraph
    beam: float = math.inf
    max_states: int = 0
    max_contexts: int = 0
    compat: bool = False
    scores: dict[State, float] = field(default_factory=dict)
    previous: dict[State, float] = field(default_factory=dict)
    frames: list[list[Arc]] = field(default_factory=list)

    def run(self, encoder_proj: FloatArray) -> "Reference":
        size = self.scorer.context_size
        start = (0,) * size if self.compat else (-1,) * (size - 1) + (0,)
        self.scores = {(start, 0): 0.0}
        for frame in encoder_proj:
            self._advance(frame)
        return self

    def best(self) -> tuple[list[int], list[int], float]:
        """Tokens, frames and score of the best path."""
        scores, frames = self.scores, self.frames
        final = self.graph.final_scores
        if self.compat:
            scores, frames = self.previous, self.frames[:-1]
            ends = {a.source for a in self.frames[-1] if a.arc == -2} if self.frames else set()
            scores = {state: score for state, score in scores.items() if state in ends}
            if not scores:
                return [], [], 0.0
        elif any(np.isfinite(final[g]) for _, g in scores):
            scores = {(c, g): score + float(final[g]) for (c, g), score in scores.items()}
        state = max(sorted(scores), key=lambda s: scores[s])
        total = scores[state]
        tokens: list[tuple[int, int]] = []
        for t in range(len(frames) - 1, -1, -1):
            values = self._values(t)
            into = [a for a in frames[t] if a.target == state]
            arc = max(into, key=lambda a: values[a.source] + a.score)
            if arc.token:
                tokens.insert(0, (arc.token, t))
            state = arc.source
        return [v for v, _ in tokens], [t for _, t in tokens], total

    def _values(self, t: int) -> dict[State, float]:
        values = {self.frames[0][0].source: 0.0} if self.frames else {}
        for frame in self.frames[:t]:
            new: dict[State, float] = {}
            for arc in frame:
                value = values[arc.source] + arc.score
                new[arc.target] = max(new.get(arc.target, -math.inf), value)
            values = new
        return values

    def _advance(self, frame: FloatArray) -> None:
        best = max(self.scores.values())
        kept: list[Arc] = []
        for state in sorted(self.scores):
            score = self.scores[state]
            for arc, compared in self._arcs(state, frame):
                if compared is None or score + compared >= best - self.beam:
                    kept.append(arc)
        values: dict[State, float] = {}
        for arc in kept:
            value = self.scores[arc.source] + arc.score
            values[arc.target] = max(values.get(arc.target, -math.inf), value)
        # Ties favour the smaller state: sorting is stable.
        ranked = sorted(sorted(values), key=lambda s: -values[s])
        floor = values[ranked[0]] - self.beam
        ranked = [s for s in ranked[: self.max_states or None] if values[s] >= floor]
        contexts: dict[tuple[int, ...], float] = {}
        for state in ranked:
            contexts[state[0]] = max(contexts.get(state[0], -math.inf), values[state])
        order = sorted(sorted(contexts), key=lambda c: -contexts[c])[: self.max_contexts or None]
        self.previous = self.scores
        self.scores = {s: values[s] for s in ranked if s[0] in order}
        self.frames.append([arc for arc in kept if arc.target in self.scores])

    def _arcs(self, state: State, frame: FloatArray) -> Iterator[tuple[Arc, float | None]]:
        """Arcs that leave a state, and what is compared with the beam; None is always kept."""
        context, g = state
        graph = self.graph
        if g == graph.num_states:
            return
        decoder_proj = self.scorer.decode(np.array([context], dtype=np.int64))
        logits = self.scorer.join(frame[None], decoder_proj)[0]
        logprobs = logits - logits.max()
        logprobs = logprobs - np.log(np.exp(logprobs).sum())
        unk = None if self.compat else self.scorer.unk_id
        blank = float(logprobs[0] if unk is None else max(logprobs[0], logprobs[unk]))
        yield Arc(state, state, -1, 0, blank), None
        for a in range(graph.row_splits[g], graph.row_splits[g + 1]):
            label, target, added = int(graph.labels[a]), int(graph.dst[a]), float(graph.scores[a])
            if label == 0:
                yield Arc(state, (context, target), a, 0, added + blank), None
            elif label != unk:
                score = float(np.float32(added) + np.float32(logprobs[label]))
                yield Arc(state, ((*context[1:], label), target), a, label, score), score
        if self.compat and np.isfinite(graph.final_scores[g]):
            final = float(graph.final_scores[g])
            yield Arc(state, (context, graph.num_states), -2, 0, final + blank), final


def all_alignments(
    scorer: Scorer, graph: DecodingGraph, encoder_proj: FloatArray
) -> dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, float]]:
    """(tokens, words) -> score of the best path and log of the sum over all: every way is gone."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]] = {}
    start = (-1,) * (scorer.context_size - 1) + (0,)

    def walk(t: int, context: tuple[int, ...], g: int, score: float, path: Sequence[int]) -> None:
        if t == len(encoder_proj):
            total = score + float(graph.final_scores[g])
            tokens = tuple(graph.labels[list(path)].tolist())
            words = tuple(
                word
                for a in path
                for word in graph.words[graph.word_splits[a] : graph.word_splits[a + 1]].tolist()
            )
            if math.isfinite(total):
                found.setdefault((tokens, words), []).append(total)
            return
        decoder_proj = scorer.decode(np.array([context], dtype=np.int64))
        logits = scorer.join(encoder_proj[t][None], decoder_proj)[0].astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        walk(t + 1, context, g, score + logprobs[0], path)
        for a in range(graph.row_splits[g], graph.row_splits[g + 1]):
            label = int(graph.labels[a])
            new_score = score + float(graph.scores[a]) + logprobs[label]
            walk(t + 1, (*context[1:], label), int(graph.dst[a]), new_score, [*path, a])

    walk(0, start, 0, 0.0, [])
    return {key: (max(totals), float(np.logaddexp.reduce(totals))) for key, totals in found.items()}
