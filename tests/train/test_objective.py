"""The losses and their weights."""

import math

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.models.build import build_transducer
from snowmelt.presets.training import TrainConfig
from snowmelt.train.objective import TransducerObjective, loss_scales, transducer_loss

VOCAB = 6


def _batch() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    x_lens = torch.tensor([90, 70])
    x = torch.randn(2, 90, 80)
    y = torch.tensor([[3, 4, 5], [5, 3, 0]])
    frame_tokens = torch.full((2, 21), -100)
    frame_tokens[0, 3:9] = 3
    return x, x_lens, y, torch.tensor([3, 2]), frame_tokens


def _objective(config: ExperimentConfig, scale: float = 0.2) -> TransducerObjective:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB)
    train = TrainConfig(ctc_loss_scale=scale, frame_loss_scale=scale)
    return TransducerObjective(model, train, encoder_dim=16, vocab_size=VOCAB)


def test_ramp_of_the_recipe() -> None:
    config = TrainConfig()
    assert loss_scales(config, 1000)[:2] == pytest.approx((0.75, 0.55))
    assert loss_scales(config, 2000)[:2] == pytest.approx((0.5, 1.0))
    assert loss_scales(config, 9999)[:2] == pytest.approx((0.5, 1.0))


def test_one_number_shortens_the_ramp() -> None:
    config = TrainConfig(schedule_scale=0.1)
    assert loss_scales(config, 100) == loss_scales(TrainConfig(), 1000)


def test_frame_loss_fades() -> None:
    config = TrainConfig(frame_loss_scale=0.4, frame_loss_batches=1000.0)
    assert loss_scales(config, 500).frame == pytest.approx(0.2)
    assert loss_scales(config, 1500).frame == 0.0
    assert loss_scales(TrainConfig(frame_loss_scale=0.4), 9999).frame == 0.4


def test_losses_do_not_depend_on_batch_mates(config: ExperimentConfig) -> None:
    model = build_transducer(config.model, VOCAB).double().eval()
    x, x_lens, y, y_lens, _ = _batch()
    x = x.double()
    both = transducer_loss(model, x, x_lens, y, y_lens)
    alone = transducer_loss(model, x[1:, :70], x_lens[1:], y[1:, :2], y_lens[1:])
    assert torch.allclose(both.simple_loss[1:], alone.simple_loss, rtol=1e-9)
    assert torch.allclose(both.pruned_loss[1:], alone.pruned_loss, rtol=1e-9)


def test_auxiliary_head_is_no_part_of_the_model(config: ExperimentConfig) -> None:
    objective = _objective(config)
    assert set(objective.heads) == {"ctc", "frame"}
    bare = build_transducer(config.model, VOCAB)
    assert objective.model.state_dict().keys() == bare.state_dict().keys()
    assert len(_objective(config, scale=0.0).heads) == 0


def test_sum_of_weighed_losses(config: ExperimentConfig) -> None:
    objective = _objective(config).eval()
    losses = objective(*_batch(), 10_000)
    auxiliary = 0.2 * losses.ctc_loss + 0.2 * losses.frame_loss
    expected = 0.5 * losses.simple_loss + losses.pruned_loss + auxiliary
    assert losses.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.is_finite.tolist() == [True, True]
    assert math.isfinite(losses.ctc_loss.item())
    assert losses.ctc_loss.item() > 0
    assert losses.frame_loss.item() > 0


def test_utterance_without_finite_loss_is_left_out(config: ExperimentConfig) -> None:
    objective = _objective(config).eval()
    batch = _batch()
    good = objective(*(t[:1] for t in batch), 5000)
    batch[0][1] = float("nan")
    both = objective(*batch, 5000)
    assert both.is_finite.tolist() == [True, False]
    assert both.pruned_loss.item() == pytest.approx(good.pruned_loss.item(), rel=1e-5)
