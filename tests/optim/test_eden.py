"""Does Eden give the recipe's learning rates, and does a run go on with the right ones?"""

import pytest
import torch
from torch import nn

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.optim.eden import Eden


def make(base_lr=0.05, groups=1, **options):
    params = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    optimizer = torch.optim.SGD(params, lr=base_lr)
    return optimizer, Eden(optimizer, 5000, 3.5, **options)


def lr(optimizer):
    return optimizer.param_groups[0]["lr"]


def test_example_of_the_recipe():
    optimizer, eden = make()
    eden.step_epoch(0)
    eden.step_batch(205)
    assert lr(optimizer) == pytest.approx(0.0352352, abs=1e-7)


@pytest.mark.parametrize(
    ("batch", "epoch", "factor"),
    [
        (0, 0, 0.5),
        (250, 0, 0.75 * (1 + 0.05**2) ** -0.25),
        (500, 0, (1 + 0.1**2) ** -0.25),
        (5000, 0, 2**-0.25),
        (5000, 3.5, 2**-0.5),
    ],
)
def test_formula(batch, epoch, factor):
    optimizer, eden = make()
    eden.step_epoch(epoch)
    eden.step_batch(batch)
    assert lr(optimizer) == pytest.approx(0.05 * factor, rel=1e-12)
    assert eden.get_lr() == [lr(optimizer)]


def test_without_warmup():
    optimizer, eden = make(warmup_batches=0)
    eden.step_batch(1)
    assert lr(optimizer) == pytest.approx(0.05, rel=1e-7)


def test_recipe_with_eve_keeps_its_own_name_for_the_base():
    optimizer, eden = make(base_lr=0.003, warmup_batches=0, base_lr_key="initial_lr")
    eden.step_epoch(0)
    eden.step_batch(5000)
    group = optimizer.param_groups[0]
    assert group["initial_lr"] == 0.003
    assert "base_lr" not in group
    assert lr(optimizer) == pytest.approx(0.003 * 2**-0.25, rel=1e-12)
    eden.set_base_lr(0.002)
    assert group["initial_lr"] == 0.002

    resumed, eden_resumed = make(base_lr=0.003, warmup_batches=0, base_lr_key="initial_lr")
    eden_resumed.load_state_dict(eden.state_dict())
    assert resumed.param_groups[0]["initial_lr"] == 0.002
    assert lr(resumed) == lr(optimizer)


def test_counting_by_itself_equals_counting_by_the_caller():
    one, eden_one = make()
    other, eden_other = make()
    for batch in range(1, 6):
        eden_one.step_batch()
        eden_other.step_batch(batch)
        assert lr(one) == lr(other)
    eden_one.step_epoch()
    eden_other.step_epoch(1)
    assert lr(one) == lr(other)


def test_state_round_trip():
    optimizer, eden = make()
    eden.step_epoch(2)
    eden.step_batch(700)
    state = eden.state_dict()
    assert state == {"base_lrs": [0.05], "epoch": 2, "batch": 700}

    resumed, eden_resumed = make(base_lr=0.01)
    eden_resumed.load_state_dict(state)
    assert lr(resumed) == lr(optimizer)
    assert resumed.param_groups[0]["base_lr"] == 0.05
    eden.step_batch()
    eden_resumed.step_batch()
    assert lr(resumed) == lr(optimizer)


def test_a_new_base_lr_takes_effect_after_loading():
    optimizer, eden = make()
    eden.step_batch(700)
    before = lr(optimizer)
    resumed, eden_resumed = make()
    eden_resumed.load_state_dict(eden.state_dict())
    eden_resumed.set_base_lr(0.045)
    assert lr(resumed) == pytest.approx(before * 0.9, rel=1e-12)
    assert eden_resumed.state_dict()["base_lrs"] == [0.045]
    assert resumed.param_groups[0]["base_lr"] == 0.045


def test_base_lr_in_the_group_wins_over_lr():
    # After the optimiser's state was loaded, lr is that of the last step.
    optimizer, _ = make()
    optimizer.param_groups[0]["lr"] = 0.001
    assert Eden(optimizer, 5000, 3.5).base_lrs == [0.05]


@pytest.mark.parametrize(
    "state",
    [{}, {"base_lrs": None, "epoch": 0, "batch": 0}, {"base_lrs": [1, 2], "epoch": 0, "batch": 0}],
)
def test_foreign_state_is_refused(state):
    _, eden = make()
    with pytest.raises(CheckpointError):
        eden.load_state_dict(state)
    assert eden.base_lrs == [0.05]


def test_arguments_are_checked():
    optimizer, eden = make()
    with pytest.raises(ConfigError, match="lr_batches and lr_epochs must be > 0, got 0"):
        Eden(optimizer, 0, 3.5)
    with pytest.raises(ConfigError, match="warmup_batches must be >= 0"):
        Eden(optimizer, 5000, 3.5, warmup_batches=-1)
    with pytest.raises(ConfigError, match="base_lr must be >= 0, got -1"):
        eden.set_base_lr(-1)
