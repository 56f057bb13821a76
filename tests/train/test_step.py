"""One step: gradients that add up, utterances that are left out, and schedules that move on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data.batch import Batch
from snowmelt.presets.models import LstmConfig
from snowmelt.train.build import new_state
from snowmelt.train.distributed import Ranks
from snowmelt.train.guard import BadUtterances, select_rows
from snowmelt.train.resume import TrainState, seed_batch
from snowmelt.train.step import Learner, batch_totals, compute_losses

VOCAB = 6
CPU = torch.device("cpu")


def _batch(num_utterances: int = 4) -> Batch:
    torch.manual_seed(3)
    feature_lens = torch.tensor([90, 85, 74, 66])[:num_utterances]
    token_lens = torch.tensor([3, 2, 2, 1])[:num_utterances]
    return Batch(
        features=torch.randn(num_utterances, 90, 80),
        feature_lens=feature_lens,
        token_ids=torch.randint(3, VOCAB, (num_utterances, 3)),
        token_lens=token_lens,
        cut_ids=tuple(f"utt{n}" for n in range(num_utterances)),
        frame_tokens=torch.zeros(num_utterances, 0, dtype=torch.int64),
    )


def _learner(config: ExperimentConfig, exp_dir: Path) -> tuple[Learner, TrainState]:
    torch.manual_seed(1)
    state = new_state(config, VOCAB, CPU, Ranks())
    return Learner(state, state.objective, CPU, BadUtterances(exp_dir)), state


def _weights(state: TrainState) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in state.objective.state_dict().items()}


@pytest.fixture
def lstm_config(config: ExperimentConfig) -> ExperimentConfig:
    """Without any randomness, and with losses that are sums over utterances."""
    model = LstmConfig(
        num_encoder_layers=1,
        encoder_dim=16,
        rnn_hidden_size=24,
        dim_feedforward=16,
        layer_dropout=0.0,
        decoder_dim=16,
        joiner_dim=16,
        dropout=0.0,
    )
    train = replace(config.train, optimizer="eve", base_lr=0.003, schedule_scale=0.0001)
    return replace(config, model=model, train=train)


def test_a_step_of_several_batches_is_a_step_of_a_large_one(
    tmp_path: Path, lstm_config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Balancers and the filter of gradients look at a batch as a whole.
    monkeypatch.setattr("random.random", lambda: 0.99)
    model = replace(lstm_config.model, grad_norm_threshold=1e12)
    config = replace(lstm_config, model=model)
    gradients = []
    for batches in ([_batch()], [select_rows(_batch(), [0, 1]), select_rows(_batch(), [2, 3])]):
        learner, state = _learner(config, tmp_path)
        state.objective.double()
        seen = {}
        monkeypatch.setattr(
            state.optimizer,
            "step",
            lambda seen=seen, state=state: seen.update(
                {n: p.grad.clone() for n, p in state.objective.named_parameters()}
            ),
        )
        doubled = [replace(b, features=b.features.double()) for b in batches]
        totals, _ = learner.step(doubled)
        gradients.append((totals, seen))
    (whole, expected), (parts, summed) = gradients
    assert parts.loss == pytest.approx(whole.loss, rel=1e-9)
    assert parts.frames == whole.frames and parts.utterances == 4.0
    for name, gradient in expected.items():
        assert torch.allclose(summed[name], gradient, rtol=1e-7, atol=1e-10), name


def test_a_step_moves_schedules_and_weights(tmp_path: Path, config: ExperimentConfig) -> None:
    learner, state = _learner(config, tmp_path)
    before = _weights(state)
    totals, is_stopping = learner.step([_batch()])
    assert state.progress.batch_idx_train == 1 and state.scheduler.batch == 1
    assert totals.utterances == 4.0 and not is_stopping
    assert any(not torch.equal(v, before[k]) for k, v in _weights(state).items())
    assert all(p.grad is None for p in state.objective.parameters())


def test_a_step_depends_on_its_number_only(tmp_path: Path, config: ExperimentConfig) -> None:
    results = []
    for noise in (0, 17):
        learner, state = _learner(config, tmp_path)
        seed_batch(noise, 99, 0)
        learner.step([_batch()])
        results.append(_weights(state))
    assert all(torch.equal(v, results[1][k]) for k, v in results[0].items())


def test_a_broken_utterance_leaves_no_trace(tmp_path: Path, config: ExperimentConfig) -> None:
    results = []
    for is_broken in (False, True):
        learner, state = _learner(config, tmp_path)
        batch = _batch()
        if is_broken:
            batch.features[2, 5, 7] = float("nan")
        else:
            batch = select_rows(batch, [0, 1, 3])
        learner.step([batch])
        results.append(_weights(state))
        assert state.bad_utterances["num_bad"] == float(is_broken)
    assert all(torch.equal(v, results[1][k]) for k, v in results[0].items())


def test_a_step_without_a_usable_utterance_changes_nothing(
    tmp_path: Path, config: ExperimentConfig
) -> None:
    learner, state = _learner(config, tmp_path)
    learner.step([_batch()])
    before = _weights(state)
    batch = replace(_batch(), token_lens=torch.zeros(4, dtype=torch.int64))
    totals, _ = learner.step([batch])
    assert totals.utterances == 0.0 and state.progress.batch_idx_train == 2
    assert all(torch.equal(v, before[k]) for k, v in _weights(state).items())


def test_the_lstm_warms_up_with_the_steps(tmp_path: Path, lstm_config: ExperimentConfig) -> None:
    train = replace(lstm_config.train, schedule_scale=0.002, model_warm_step=3000)
    learner, state = _learner(replace(lstm_config, train=train), tmp_path)
    for _ in range(3):
        learner.step([_batch()])
    assert state.objective.model.encoder.warmup == pytest.approx(3 / 6)


def test_what_a_batch_adds_to_the_totals(tmp_path: Path, config: ExperimentConfig) -> None:
    _, state = _learner(config, tmp_path)
    state.objective.eval()
    batch = _batch()
    losses = compute_losses(state.objective, batch, 1, "", state, CPU)
    totals = batch_totals(losses, batch)
    assert (totals.frames, totals.feature_frames) == (22 + 21 + 18 + 16, 315.0)
    assert totals.padding == pytest.approx(sum(1 - n / 90 for n in (90, 85, 74, 66)))
    assert totals.loss == pytest.approx(losses.loss.item())
