"""Is a bad step skipped and counted in every precision, and does the loss scale follow its rules?

No GPU here: float16 is tried on the CPU, with torch's CPU gradient scaler.
"""

import logging
import math

import pytest
import torch
from torch import nn

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.optim.eve import Eve
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.train import precision as precision_module
from snowmelt.train.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def all_messages(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def fp16_on_cpu(monkeypatch):
    monkeypatch.setattr(precision_module, "_FP16_DEVICES", ("cuda", "cpu"))


def make(use_fp16=False, use_bf16=False, **options):
    return Precision(CPU, use_fp16=use_fp16, use_bf16=use_bf16, **options)


def scaled_adam(model):
    return ScaledAdam(
        model.parameters(), parameters_names=[[n for n, _ in model.named_parameters()]]
    )


def eve(model):
    return Eve(model.named_parameters())


def make_model():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def train_batch(precision, model, optimizer, batch_idx_train=1, factor=1.0):
    with precision.autocast():
        loss = (model(torch.ones(2, 4)) * factor).float().square().sum()
    precision.backward(loss)
    stepped = precision.step(optimizer, batch_idx_train)
    optimizer.zero_grad()
    return stepped


PRECISIONS = [{}, {"use_bf16": True}, {"use_fp16": True}]


@pytest.mark.parametrize("make_optimizer", [scaled_adam, eve])
@pytest.mark.parametrize("options", PRECISIONS)
def test_a_bad_step_is_skipped_whole_and_counted(options, make_optimizer, fp16_on_cpu):
    model = make_model()
    optimizer, precision = make_optimizer(model), make(**options, init_scale=1.0)
    assert train_batch(precision, model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    state_before = optimizer.state_dict()["state"][0]["exp_avg_sq"].clone()
    for bad in (math.nan, math.inf):
        assert not train_batch(precision, model, optimizer, factor=bad)
    assert optimizer.num_skipped_steps == 2
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg_sq"], state_before)
    assert train_batch(precision, model, optimizer)
    assert optimizer.num_skipped_steps == 2
    assert not torch.equal(model.weight, before[0])


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({"use_bf16": True}, torch.bfloat16),
        ({"use_fp16": True}, torch.float16),
    ],
)
def test_autocast(options, dtype, fp16_on_cpu):
    with make(**options).autocast():
        assert make_model()(torch.ones(2, 4)).dtype == dtype
    assert make_model()(torch.ones(2, 4)).dtype == torch.float32


def test_scaling_does_not_change_the_step(fp16_on_cpu):
    weights = []
    for use_fp16 in (False, True):
        model = make_model()
        precision, optimizer = make(use_fp16=use_fp16), eve(model)
        loss = model(torch.ones(2, 4)).square().sum()
        precision.backward(loss)
        if use_fp16:
            assert torch.allclose(model.weight.grad, weights[0][1] * 65536.0)
        weights.append((model.weight.detach(), model.weight.grad.clone()))
        assert precision.step(optimizer, 1)
    torch.testing.assert_close(weights[0][0], weights[1][0])


def test_both_precisions_at_once_are_refused():
    with pytest.raises(ConfigError, match="use_fp16 and use_bf16 are both on") as caught:
        make(use_fp16=True, use_bf16=True)
    assert caught.value.hint


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_fp16_without_cuda_says_what_happens(device, caplog):
    precision = Precision(torch.device(device), use_fp16=True, use_bf16=False)
    [message] = caplog.messages
    assert device in message
    assert "float32" in message
    assert "--use-bf16" in message
    assert precision.scale is None
    assert precision.state_dict() is None


def test_fp16_on_cpu_computes_in_float32():
    with make(use_fp16=True).autocast():
        assert make_model()(torch.ones(2, 4)).dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"use_bf16": True}])
def test_without_scaler_there_is_nothing_to_save_or_load(options, caplog):
    precision = make(**options)
    assert precision.scale is None
    assert precision.state_dict() is None
    precision.load_state_dict({"scale": 8.0})  # the run was in float16 so far
    assert precision.scale is None
    assert caplog.messages == []


def test_the_scale_halves_on_overflow_and_says_so(fp16_on_cpu, caplog):
    model = make_model()
    precision, optimizer = make(use_fp16=True), eve(model)
    assert precision.scale == 65536.0
    assert not train_batch(precision, model, optimizer, factor=math.inf)
    assert precision.scale == 32768.0
    assert caplog.messages == ["step skipped: gradients overflow, the loss scale is now 3.28e+04"]


def test_state_round_trip(fp16_on_cpu):
    model = make_model()
    precision, optimizer = make(use_fp16=True, init_scale=16.0), eve(model)
    assert not train_batch(precision, model, optimizer, factor=math.inf)
    assert train_batch(precision, model, optimizer)
    state = precision.state_dict()
    assert state == {
        "scale": 8.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 1,
    }
    resumed = make(use_fp16=True, init_scale=1.0)
    resumed.load_state_dict(state)
    assert resumed.scale == 8.0
    train_batch(resumed, model, optimizer)
    assert resumed.state_dict()["_growth_tracker"] == 2


@pytest.mark.parametrize("saved", [None, {}])
def test_a_run_that_had_no_scaler_begins_with_the_initial_scale(saved, fp16_on_cpu):
    precision = make(use_fp16=True, init_scale=1.0)
    precision.load_state_dict(saved)
    assert precision.scale == 1.0


def test_a_foreign_state_is_refused(fp16_on_cpu):
    with pytest.raises(CheckpointError, match="gradient scaler has no 'growth_factor'"):
        make(use_fp16=True).load_state_dict({"scale": 1.0})


@pytest.mark.parametrize(
    ("scale", "batch_idx_train", "has_manual_growth", "after"),
    [
        (0.25, 100, True, 0.5),
        (0.25, 300, True, 0.5),
        (0.25, 99, True, 0.25),
        (0.25, 100, False, 0.25),
        (1.0, 100, True, 1.0),
        (1.0, 400, True, 2.0),
        (4.0, 800, True, 8.0),
        (4.0, 500, True, 4.0),
        (4.0, 600, True, 4.0),
        (8.0, 400, True, 8.0),
    ],
)
def test_manual_growth(scale, batch_idx_train, has_manual_growth, after, fp16_on_cpu):
    model = make_model()
    precision = make(use_fp16=True, init_scale=scale, has_manual_growth=has_manual_growth)
    assert train_batch(precision, model, eve(model), batch_idx_train)
    assert precision.scale == after


@pytest.mark.parametrize(("scale", "num_warnings"), [(0.011, 0), (0.009, 1)])
def test_a_small_scale_is_warned_of(scale, num_warnings, fp16_on_cpu, caplog):
    model = make_model()
    precision, optimizer = make(use_fp16=True, init_scale=scale), eve(model)
    train_batch(precision, model, optimizer, 99)
    assert caplog.messages == []
    train_batch(precision, model, optimizer, 100)
    assert caplog.messages == ["the loss scale is small: 0.009"] * num_warnings


def test_a_vanishing_scale_stops_the_run(fp16_on_cpu):
    model = make_model()
    precision = make(use_fp16=True, init_scale=9e-6, has_manual_growth=True)
    with pytest.raises(ConfigError, match="the loss scale has fallen to 9e-06") as caught:
        train_batch(precision, model, eve(model), 100)
    assert "--base-lr" in caught.value.hint
    assert "0.02" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.parametrize("options", PRECISIONS)
def test_on_cuda(options):
    model = make_model().to("cuda")
    precision = Precision(torch.device("cuda"), **{"use_fp16": False, "use_bf16": False, **options})
    optimizer = scaled_adam(model)
    x = torch.ones(2, 4, device="cuda")
    for factor, stepped in ((1.0, True), (math.inf, False), (1.0, True)):
        with precision.autocast():
            loss = (model(x) * factor).float().square().sum()
        precision.backward(loss)
        assert precision.step(optimizer, 1) is stepped
        optimizer.zero_grad()
    assert optimizer.num_skipped_steps == 1
