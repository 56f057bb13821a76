"""A neural model in the searches: as the model itself says, in any company, in any cut."""

import numpy as np
import pytest
import torch

from snowmelt.runtime.backends.torch_lm import TorchLm
from snowmelt.search.lm import WeightedLms, sentence_scores
from snowmelt.search.method import SearchMethod, search_whole
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.search.rescoring import RescoringSearch
from tests.runtime.tiny_lm import tiny_lm
from tests.search.fake_lms import HistoryLm
from tests.search.fakes import RandomScorer, frames_batch

V = 5
BOTH = pytest.mark.parametrize("lm_type", ["rnn", "transformer"])


def _lm(lm_type: str) -> TorchLm:
    return TorchLm(tiny_lm(lm_type, V).double(), sos_eos_id=1)


@BOTH
def test_sentences_are_scored_as_by_the_whole_model(lm_type: str) -> None:
    model = tiny_lm(lm_type, V).double()
    sentences = [(2, 3, 4, 4, 2, 3, 2), (), (4,), (2, 3, 2)]
    found = sentence_scores(TorchLm(model, sos_eos_id=1), sentences)
    for tokens, total in zip(sentences, found, strict=True):
        with torch.inference_mode():
            scores, _ = model.score(torch.tensor([[1, *tokens]]))
        targets = [*tokens, 1]
        expected = scores[0, range(len(targets)), targets].sum()
        assert total == pytest.approx(float(expected), abs=1e-10)


@BOTH
def test_states_are_values(lm_type: str) -> None:
    lm = _lm(lm_type)
    states = lm.advance([lm.start()] * 3, np.array([2, 3, 4]))
    again = lm.advance([lm.start()], np.array([3]))
    rows = lm.scores([states[1], again[0]])
    assert rows.shape == (2, V) and np.isfinite(rows).all()
    assert rows[0] == pytest.approx(rows[1], abs=1e-12)
    rows[:] = 0.0  # a new array: the states stay as they are
    assert (lm.scores(again) != 0.0).all()
    assert lm.final_scores(states)[1] == lm.scores(states)[1, 1]
    assert lm.advance([], np.zeros(0, np.int64)) == []


def _searches(lm_type: str) -> list[SearchMethod]:
    lm, lodr = _lm(lm_type), HistoryLm(V, dtype=np.float64)
    first_pass = ModifiedBeamSearch(4)
    return [
        ModifiedBeamSearch(4, lm=WeightedLms(((lm, 0.6),))),
        ModifiedBeamSearch(4, lm=WeightedLms(((lm, 0.6), (lodr, -0.2)))),
        RescoringSearch(first_pass, lm, 0.6),
        RescoringSearch(first_pass, lm, 0.6, lodr, -0.2),
    ]


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_streaming_together_is_each_alone_at_once(lm_type: str, seed: int) -> None:
    scorer = RandomScorer(vocab_size=V, seed=seed, dtype=np.float64)
    encoder_proj, lens = frames_batch(14, 9, 12)
    for search in _searches(lm_type):
        alone = [
            search_whole(search, scorer, encoder_proj[n : n + 1, :num], lens[n : n + 1])[0]
            for n, num in enumerate(lens.tolist())
        ]
        for chunk in (1, 4):
            states = [search.init_state(scorer) for _ in lens]
            for begin in range(0, encoder_proj.shape[1], chunk):
                piece = encoder_proj[:, begin : begin + chunk]
                piece_lens = np.clip(lens - begin, 0, piece.shape[1])
                states = search.step(scorer, piece, piece_lens, states)
            found = [search.result(scorer, state, is_final=True) for state in states]
            for one, expected in zip(found, alone, strict=True):
                assert (one.tokens, one.timestamps) == (expected.tokens, expected.timestamps)
                assert one.log_prob == pytest.approx(expected.log_prob, abs=1e-4)


@BOTH
def test_the_model_is_heard(lm_type: str) -> None:
    scorer = RandomScorer(vocab_size=V, seed=1)
    (plain,) = search_whole(ModifiedBeamSearch(4), scorer, *frames_batch(14))
    search = ModifiedBeamSearch(4, lm=WeightedLms(((_lm(lm_type), 2.0),)))
    (found,) = search_whole(search, scorer, *frames_batch(14))
    assert found.tokens != plain.tokens


@BOTH
def test_one_call_serves_all_streams(lm_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = _lm(lm_type)
    sizes = []
    advance = lm.advance
    monkeypatch.setattr(
        lm, "advance", lambda states, ids: (sizes.append(len(states)), advance(states, ids))[1]
    )
    search = ModifiedBeamSearch(4, lm=WeightedLms(((lm, 0.3),)))
    search_whole(search, RandomScorer(vocab_size=V), *frames_batch(14, 14, 14))
    assert len(sizes) <= 14 and max(sizes) > 4
