"""The losses and their weights."""

import math
from typing import Any

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.models.build import build_transducer
from snowmelt.models.joiner import Joiner
from snowmelt.presets.training import TrainConfig
from snowmelt.train import objective
from snowmelt.train.objective import (
    TransducerObjective,
    delay_penalty_at,
    loss_scales,
    transducer_loss,
)

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


def test_steps_of_the_lstm_recipe() -> None:
    config = TrainConfig(loss_schedule="stepped")
    scales = {batch: loss_scales(config, batch)[:2] for batch in (1, 2999, 3000, 5999, 6000)}
    assert scales == {
        1: (0.5, 0),
        2999: (0.5, 0),
        3000: (0.5, 0.1),
        5999: (0.5, 0.1),
        6000: (0.5, 1),
    }


def test_the_delay_penalty_rises_after_the_warm_up() -> None:
    config = TrainConfig(delay_penalty=0.002, delay_penalty_start=4000, delay_penalty_ramp=2000)
    assert [delay_penalty_at(config, b) for b in (1, 3999, 4000)] == [0.0, 0.0, 0.0]
    assert delay_penalty_at(config, 5000) == pytest.approx(0.001)
    assert delay_penalty_at(config, 9999) == 0.002
    at_once = TrainConfig(delay_penalty=0.002, delay_penalty_start=6000, delay_penalty_ramp=0)
    assert (delay_penalty_at(at_once, 5999), delay_penalty_at(at_once, 6000)) == (0.0, 0.002)
    assert delay_penalty_at(TrainConfig(delay_penalty=0.1, schedule_scale=0.1), 400) == 0.1


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


def test_a_delay_penalty_changes_both_losses_and_validation_has_none(
    config: ExperimentConfig,
) -> None:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB).eval()
    x, x_lens, y, y_lens, frame_tokens = _batch()
    plain = transducer_loss(model, x, x_lens, y, y_lens)
    early = transducer_loss(model, x, x_lens, y, y_lens, delay_penalty=0.01)
    assert not torch.equal(plain.simple_loss, early.simple_loss)
    assert not torch.equal(plain.pruned_loss, early.pruned_loss)
    train = TrainConfig(delay_penalty=0.01, delay_penalty_start=0, delay_penalty_ramp=0)
    objective = TransducerObjective(model, train, encoder_dim=16, vocab_size=VOCAB).eval()
    losses = objective(x, x_lens, y, y_lens, frame_tokens, 1)
    assert losses.pruned_loss.item() == pytest.approx(plain.pruned_loss.sum().item(), rel=1e-6)


def test_hidden_tokens_are_those_the_decoder_does_not_see(
    config: ExperimentConfig,
) -> None:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB).eval()
    x, x_lens, y, y_lens, frame_tokens = _batch()
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    torch.manual_seed(4)
    hidden = transducer_loss(model, x, x_lens, y, y_lens, context_dropout=0.5)
    is_hidden = seen[0] < 0
    assert 0 < is_hidden.sum() < is_hidden.numel()
    full = torch.nn.functional.pad(y, (1, 0))
    assert torch.equal(seen[0][~is_hidden], full[~is_hidden])
    # The words to be said are still those of the transcript.
    plain = transducer_loss(model, x, x_lens, y, y_lens)
    assert torch.equal(seen[1], full) and torch.equal(plain.encoder_out, hidden.encoder_out)
    assert not torch.equal(plain.pruned_loss, hidden.pruned_loss)

    train = TrainConfig(context_dropout=0.5)
    objective = TransducerObjective(model, train, encoder_dim=16, vocab_size=VOCAB).eval()
    losses = objective(x, x_lens, y, y_lens, frame_tokens, 1)
    assert losses.pruned_loss.item() == pytest.approx(plain.pruned_loss.sum().item(), rel=1e-6)


def test_validation_weighs_the_losses_as_the_end_of_training_does(config: ExperimentConfig) -> None:
    objective = _objective(config).eval()
    first, last = objective(*_batch(), 1), objective(*_batch(), 10_000)
    assert first.loss.item() == last.loss.item()


def test_a_pruned_loss_that_waits_has_no_gradient(config: ExperimentConfig) -> None:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB)
    train = TrainConfig(loss_schedule="stepped")
    objective = TransducerObjective(model, train, encoder_dim=16, vocab_size=VOCAB)
    losses = objective(*_batch(), 1)
    losses.loss.backward()
    assert losses.pruned_loss.item() > 0.0
    assert all(p.grad is None for p in model.joiner.parameters())
    assert model.simple_am_proj.weight.grad is not None


def test_another_head_shares_the_encoder_only(config: ExperimentConfig) -> None:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB, extra_heads=("giga",))
    objective = TransducerObjective(model, TrainConfig(), encoder_dim=16, vocab_size=VOCAB)
    objective(*_batch(), 1, "giga").loss.backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {
        "encoder",
        "decoder_giga",
        "joiner_giga",
        "simple_am_proj_giga",
        "simple_lm_proj_giga",
    }


def test_a_batch_without_utterances_has_gradients_of_zero(config: ExperimentConfig) -> None:
    objective = _objective(config)
    batch = tuple(t[:0] for t in _batch())
    losses = objective(*batch, 5)
    losses.loss.backward()
    assert losses.loss.item() == 0.0 and losses.is_finite.tolist() == []
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize("scaled", [False, True])
def test_a_watched_joiner_computes_its_logits(config: ExperimentConfig, scaled: bool) -> None:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB).double().eval()
    if scaled:
        model.joiner = Joiner(16, 16, 16, VOCAB, scaled=True).double()
    x, x_lens, y, y_lens, _ = _batch()
    shapes: list[torch.Size] = []
    fused = transducer_loss(model, x.double(), x_lens, y, y_lens)
    handle = model.joiner.register_forward_hook(lambda *call: shapes.append(call[-1].shape))
    watched = transducer_loss(model, x.double(), x_lens, y, y_lens)
    handle.remove()
    assert len(shapes) == 1 and shapes[0][-1] == VOCAB
    torch.testing.assert_close(fused.pruned_loss, watched.pruned_loss, rtol=1e-10, atol=1e-10)
    parameters = list(model.joiner.parameters())
    for ours, wanted in zip(
        torch.autograd.grad(fused.pruned_loss.sum(), parameters),
        torch.autograd.grad(watched.pruned_loss.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("is_faster", [True, False])
def test_bf16_products_only_where_they_are_faster(
    config: ExperimentConfig, is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    fused = objective.rnnt_loss_pruned_joiner

    def spied(**arguments: Any) -> torch.Tensor:
        seen.append(arguments["product_dtype"])
        return fused(**arguments)

    monkeypatch.setattr(objective, "rnnt_loss_pruned_joiner", spied)
    monkeypatch.setattr(objective, "bf16_is_faster", lambda: is_faster)
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB).eval()
    x, x_lens, y, y_lens, _ = _batch()
    exact = transducer_loss(model, x, x_lens, y, y_lens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = transducer_loss(model, x, x_lens, y, y_lens)
    assert seen == [None, torch.bfloat16 if is_faster else None]
    assert short.pruned_loss.dtype == torch.float32
    torch.testing.assert_close(short.pruned_loss, exact.pruned_loss, rtol=5e-2, atol=0.5)
