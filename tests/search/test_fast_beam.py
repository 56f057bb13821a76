"""Graph search, one best: the original's values, a plain program's, brute force, and streaming."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.core.errors import ConfigError
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.fast_beam_state import FastBeamState
from snowmelt.search.lattice import compat_lattice
from snowmelt.search.method import SearchResult, search_whole
from snowmelt.search.scorer import FloatArray, IntArray
from snowmelt.text.graph import DecodingGraph, graph_from_k2_arcs, trivial_graph
from tests.search.fakes import RandomScorer, ToyScorer, frames_batch, toy_batch
from tests.search.graph_reference import Reference, all_alignments


def random_graph(seed: int, vocab_size: int = 4, num_states: int = 3) -> DecodingGraph:
    """Tokens in all directions, words on some arcs, some states that cannot end."""
    rng = np.random.default_rng(seed)
    arcs, scores, words = [], [], []
    for state in range(num_states):
        for label in range(1, vocab_size):
            for target in rng.choice(num_states, size=rng.integers(0, 3), replace=False):
                arcs.append((state, target, label))
                scores.append(-rng.exponential())
                words.append([int(w) for w in rng.integers(5, 9, size=rng.integers(0, 3))])
        if rng.random() < 0.6 or state == 0:
            arcs.append((state, num_states, -1))
            scores.append(-rng.exponential())
            words.append([])
    return graph_from_k2_arcs(
        np.array(arcs),
        np.array(scores, dtype=np.float32),
        np.cumsum([0] + [len(own) for own in words]),
        np.array([word for own in words for word in own], dtype=np.int64),
    )


def whole(
    search: FastBeamSearch, scorer: Any, encoder_proj: FloatArray, lens: IntArray
) -> list[SearchResult]:
    return search_whole(search, scorer, encoder_proj, lens)


# What the original (k2) gives on the toy model: tokens, frames, score, lattice states and arcs,
# log of the sum over the lattice.
_GOLDEN: list[tuple[dict[str, Any], list[Any]]] = [
    (
        {"beam": 20.0, "max_states": 64, "max_contexts": 8},
        [
            ((2, 4, 3, 1, 3, 4), (0, 2, 3, 4, 5, 6), -4.454293, 72, 124, -2.141365),
            ((4, 1, 1), (1, 2, 3), -3.321167, 45, 69, -1.757806),
        ],
    ),
    (
        {"beam": 4.0, "max_states": 8, "max_contexts": 4},
        [((2, 4, 3, 1, 3, 4), (0, 2, 3, 4, 5, 6), None, None, None, None), ((), ()) + (None,) * 4],
    ),
    (
        {"beam": 4.0, "max_states": 32, "max_contexts": 4},
        [((2, 4, 3, 1, 3, 4), (0, 2, 3, 4, 5, 6), None, None, None, None), ((), ()) + (None,) * 4],
    ),
    (
        {"beam": 4.0, "max_states": 8, "max_contexts": 4, "allow_partial": True},
        [
            ((2, 4, 3, 1, 3, 4), (0, 2, 3, 4, 5, 6), None, None, None, None),
            ((2, 4), (1, 3), None, None, None, None),
        ],
    ),
    (
        {"beam": 20.0, "max_states": 64, "max_contexts": 8, "ilme_scale": 0.1},
        [
            ((2, 4, 1, 3, 4), (0, 2, 3, 5, 6), None, None, None, None),
            ((4, 1, 1), (1, 2, 3), None, None, None, None),
        ],
    ),
]


@pytest.mark.parametrize("options, expected", _GOLDEN)
def test_as_the_original(options: dict[str, Any], expected: list[Any]) -> None:
    search = FastBeamSearch(icefall_compat=True, keeps_lattice=True, **options)
    encoder_proj, lens = toy_batch()
    scorer = ToyScorer()
    # The padding of the second utterance is not zero: it must not be looked at.
    states = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)] * 2)
    for state, (tokens, frames, score, num_states, num_arcs, total) in zip(
        states, expected, strict=True
    ):
        result = search.result(scorer, state, is_final=True)
        assert (result.tokens, result.timestamps) == (tokens, frames)
        lattice = compat_lattice(state.lattice, allow_partial=search.allow_partial)
        if score is not None:
            assert result.log_prob == pytest.approx(score, abs=1e-5)
            assert (lattice.num_states, len(lattice.arcs)) == (num_states, num_arcs)
            assert lattice.log_total() == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_as_a_plain_program(seed: int, compat: bool) -> None:
    rng = np.random.default_rng(seed)
    scorer = RandomScorer(vocab_size=5, seed=seed, unk_id=2 if seed % 2 else None)
    graph = None if seed % 3 == 0 else random_graph(seed, vocab_size=5)
    limits: dict[str, Any] = {
        "beam": float(rng.choice([2.0, 6.0, 20.0])),
        "max_states": int(rng.choice([0, 3, 8])),
        "max_contexts": int(rng.choice([0, 2, 4])),
    }
    search = FastBeamSearch(graph=graph, icefall_compat=compat, keeps_lattice=True, **limits)
    encoder_proj, lens = frames_batch(9, 1, 6)
    states = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)] * 3)
    for n, state in enumerate(states):
        reference = Reference(scorer, graph or trivial_graph(5), compat=compat, **limits)
        reference.run(encoder_proj[n, : lens[n]])
        result = search.result(scorer, state, is_final=True)
        tokens, frames, score = reference.best()
        assert (list(result.tokens), list(result.timestamps)) == (tokens, frames)
        assert result.log_prob == pytest.approx(score, abs=1e-4)
        assert len(state.scores) == len(reference.scores)
        np.testing.assert_allclose(
            state.scores, [reference.scores[s] for s in sorted(reference.scores)], atol=1e-4
        )
        num_arcs = [len(frame) for frame in reference.frames]
        kept = np.concatenate([np.diff(piece.splits) for piece in state.lattice])
        assert kept.tolist() == num_arcs


def test_compat_lets_an_epsilon_take_a_frame() -> None:
    graph = graph_from_k2_arcs(
        np.array([[0, 1, 0], [0, 0, 1], [1, 1, 2], [0, 2, -1], [1, 2, -1]]),
        np.array([-0.5, 0.0, -0.1, -0.2, 0.0], dtype=np.float32),
    )
    scorer = RandomScorer(vocab_size=4, seed=3)
    encoder_proj, lens = frames_batch(8)
    search = FastBeamSearch(graph=graph, icefall_compat=True)
    (result,) = whole(search, scorer, encoder_proj, lens)
    reference = Reference(scorer, graph, beam=20.0, max_states=64, max_contexts=8, compat=True)
    assert list(result.tokens) == reference.run(encoder_proj[0]).best()[0]
    with pytest.raises(ConfigError, match="take no token"):
        FastBeamSearch(graph=graph)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_trivial", [True, False])
def test_without_limits_it_is_brute_force(seed: int, is_trivial: bool) -> None:
    scorer = RandomScorer(vocab_size=4, seed=seed)
    graph = trivial_graph(4) if is_trivial else random_graph(seed)
    encoder_proj, lens = frames_batch(5)
    search = FastBeamSearch(
        graph=None if is_trivial else graph, beam=np.inf, max_states=0, max_contexts=0
    )
    (result,) = whole(search, scorer, encoder_proj, lens)
    paths = all_alignments(scorer, graph, encoder_proj[0])
    (tokens, words), (score, _) = max(paths.items(), key=lambda item: item[1][0])
    assert result.tokens == tokens
    assert result.words == (None if is_trivial else words)
    assert result.log_prob == pytest.approx(score, abs=1e-4)


@given(
    cuts=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    seed=st.integers(0, 20),
    options=st.sampled_from(
        [
            {"beam": 4.0, "max_states": 6, "max_contexts": 3},
            {"beam": 20.0},
            {"beam": 3.0, "icefall_compat": True},
        ]
    ),
)
@settings(max_examples=40, deadline=None)
def test_every_cut_gives_the_same(cuts: list[int], seed: int, options: dict[str, Any]) -> None:
    scorer = RandomScorer(vocab_size=5, seed=seed)
    graph = random_graph(seed, vocab_size=5) if seed % 2 else None
    search = FastBeamSearch(graph=graph, **options)
    encoder_proj, lens = frames_batch(sum(cuts), 30)
    # Two streams at different places of theirs are stacked in every step.
    states = [search.init_state(scorer)] * 2
    expected = search.step(scorer, encoder_proj, lens, states)
    begin, stable = 0, [(), ()]
    for i, cut in enumerate(cuts):
        rest = 30 - 3 * i if i == len(cuts) - 1 else 3
        other = encoder_proj[1, 3 * i : 3 * i + rest] if 3 * i < 30 else encoder_proj[1, :0]
        batch = np.full((2, max(cut, len(other)), 1), 1e6, dtype=np.float32)
        batch[0, :cut] = encoder_proj[0, begin : begin + cut]
        batch[1, : len(other)] = other
        begin += cut
        step_lens = np.array([cut, len(other)])
        states = search.step(scorer, batch, step_lens, states)
        for n, state in enumerate(states):
            partial = search.result(scorer, state, is_final=False)
            # What was called stable once stays, in every later result.
            assert partial.tokens[: len(stable[n])] == stable[n]
            stable[n] = partial.tokens[: partial.num_stable]
    for n in range(2):
        assert_same_state(states[n], expected[n])
        final = search.result(scorer, states[n], is_final=True)
        assert final == search.result(scorer, expected[n], is_final=True)
        assert final.tokens[: len(stable[n])] == stable[n]


def assert_same_state(a: FastBeamState, b: FastBeamState) -> None:
    for name in ("contexts", "graph_states", "scores"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.committed, a.num_frames) == (b.committed, b.num_frames)


def test_batch_mates_change_nothing() -> None:
    scorer = RandomScorer(vocab_size=6, seed=1)
    search = FastBeamSearch(beam=6.0, max_states=10, max_contexts=4)
    encoder_proj, lens = frames_batch(12, 3, 0, 20)
    together = whole(search, scorer, encoder_proj, lens)
    for n in range(4):
        assert whole(search, scorer, encoder_proj[n : n + 1], lens[n : n + 1]) == [together[n]]
    turned = whole(search, scorer, encoder_proj[::-1], lens[::-1])
    assert turned[::-1] == together


def test_states_handed_in_stay_as_they_were() -> None:
    scorer = RandomScorer(vocab_size=6, seed=1)
    search = FastBeamSearch()
    encoder_proj, _ = frames_batch(12)
    first = search.step(scorer, encoder_proj[:, :6], np.array([6]), [search.init_state(scorer)])
    before = search.result(scorer, first[0], is_final=True)
    scores = first[0].scores.copy()
    search.step(scorer, encoder_proj[:, 6:], np.array([6]), first)
    assert search.result(scorer, first[0], is_final=True) == before
    np.testing.assert_array_equal(first[0].scores, scores)


def test_what_is_decided_is_not_kept() -> None:
    """Memory stays bounded: many frames leave no longer a history than few."""
    scorer = RandomScorer(vocab_size=4, seed=0)
    search = FastBeamSearch(beam=4.0, max_states=8, max_contexts=4)
    states = [search.init_state(scorer)]
    sizes = []
    for start in range(400):
        chunk = ((8 * start + np.arange(8)) % 64).astype(np.float32)[None, :, None]
        states = search.step(scorer, chunk, np.array([8]), states)
        sizes.append(len(states[0].history.parents))
    assert max(sizes[200:]) <= max(sizes[:200]) < 100
    result = search.result(scorer, states[0], is_final=False)
    assert 0 < len(result.tokens) - result.num_stable < 50
    assert len(result.tokens) > 500


def test_a_new_segment_counts_frames_on() -> None:
    scorer = RandomScorer(vocab_size=5, seed=2)
    search = FastBeamSearch()
    encoder_proj, lens = frames_batch(10)
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    best = search.result(scorer, state, is_final=False)
    kept = search.clear_result(scorer, state, keep_history=True)
    fresh = search.clear_result(scorer, state, keep_history=False)
    assert search.result(scorer, kept, is_final=True).tokens == ()
    (after,) = search.step(scorer, encoder_proj, lens, [fresh])
    again = search.result(scorer, after, is_final=True)
    assert again.tokens == search.result(scorer, state, is_final=True).tokens
    assert again.timestamps == tuple(10 + t for t in best.timestamps)
    # With history the next token is asked for after the last ones.
    contexts = np.array([best.tokens[-2:]])
    first = scorer.join(encoder_proj[0, :1], scorer.decode(contexts))[0]
    (one,) = search.step(scorer, encoder_proj[:, :1], np.array([1]), [kept])
    expected = first.astype(np.float64) - np.logaddexp.reduce(first.astype(np.float64))
    assert one.scores.max() == pytest.approx(expected.max(), abs=1e-5)


def test_a_blank_that_is_dear_and_a_token_that_is_not() -> None:
    """The last frame counts and may emit, unlike the original's."""
    scorer = ToyScorer()
    encoder_proj, lens = toy_batch()
    results = whole(FastBeamSearch(), scorer, encoder_proj, lens)
    assert [result.timestamps[-1] for result in results] == [7, 4]


def test_unk_is_never_emitted() -> None:
    encoder_proj, lens = toy_batch()
    for result in whole(FastBeamSearch(), ToyScorer(unk_id=2), encoder_proj, lens):
        assert 2 not in result.tokens and result.tokens
    compat = whole(FastBeamSearch(icefall_compat=True), ToyScorer(unk_id=2), encoder_proj, lens)
    assert 2 in compat[0].tokens


def test_blank_penalty_and_temperature_act_on_the_logits() -> None:
    class Changed(ToyScorer):
        def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
            logits = super().join(encoder_proj, decoder_proj)
            logits[:, 0] -= 1.5
            return (logits / 2.0).astype(np.float32)

    encoder_proj, lens = toy_batch()
    a = whole(FastBeamSearch(blank_penalty=1.5, temperature=2.0), ToyScorer(), encoder_proj, lens)
    b = whole(FastBeamSearch(), Changed(), encoder_proj, lens)
    assert [result.tokens for result in a] == [result.tokens for result in b]
    assert a[0].log_prob == pytest.approx(b[0].log_prob, abs=1e-5)


def test_token_logprobs_are_the_models_own() -> None:
    """On a graph, with internal language model: neither is part of a token's probability."""
    scorer = RandomScorer(vocab_size=5, seed=4)
    graph = random_graph(4, vocab_size=5)
    encoder_proj, lens = frames_batch(12)
    (result,) = whole(FastBeamSearch(graph=graph, ilme_scale=0.3), scorer, encoder_proj, lens)
    assert result.tokens
    history = [-1, 0]
    for token, frame, logprob in zip(
        result.tokens, result.timestamps, result.token_logprobs, strict=True
    ):
        context = np.array([history[-2:]])
        logits = scorer.join(encoder_proj[0, frame][None], scorer.decode(context))[0]
        logits = logits.astype(np.float64)
        assert logprob == pytest.approx(logits[token] - np.logaddexp.reduce(logits), abs=1e-5)
        history.append(token)
    assert result.words is not None and result.word_timestamps is not None
    assert len(result.words) == len(result.word_timestamps)


def test_cut_off_speech_has_a_result() -> None:
    """Where no state can end all may."""
    graph = graph_from_k2_arcs(
        np.array([[0, 1, 1], [1, 2, 2], [2, 3, -1]]), np.zeros(3, dtype=np.float32)
    )
    scorer = RandomScorer(vocab_size=3, seed=0)
    encoder_proj, lens = frames_batch(1)
    (result,) = whole(FastBeamSearch(graph=graph), scorer, encoder_proj, lens)
    assert np.isfinite(result.log_prob)
    (compat,) = whole(FastBeamSearch(graph=graph, icefall_compat=True), scorer, encoder_proj, lens)
    assert compat.tokens == ()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beam": 0.0}, "beam must be above 0"),
        ({"max_states": -1}, "max_states must not be below 0"),
        ({"max_contexts": -2}, "max_contexts must not be below 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FastBeamSearch(**options)


def test_a_graph_of_another_vocabulary_is_refused() -> None:
    encoder_proj, lens = frames_batch(3)
    search = FastBeamSearch(graph=trivial_graph(9))
    with pytest.raises(ConfigError, match="a token 8, the model only those below 4"):
        whole(search, RandomScorer(vocab_size=4), encoder_proj, lens)
