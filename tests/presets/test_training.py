"""Numbers of a run: checked at the door, shortened by one factor, and presets that fit together."""

from dataclasses import replace
from typing import Any

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.presets.training import TrainConfig


def test_one_number_shortens_a_recipe() -> None:
    config = TrainConfig(schedule_scale=0.06)
    assert config.scaled(5000.0) == pytest.approx(300.0)
    assert config.scaled_period(200) == 12
    assert replace(config, schedule_scale=1e-6).scaled_period(200) == 1


@pytest.mark.parametrize(
    "name", ["num_epochs", "base_lr", "warm_step", "log_interval", "keep_last_k", "reset_interval"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_what_must_be_positive(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}, it must be positive"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_lr": float("nan")}, "base_lr is nan, it must be a finite number"),
        ({"lr_warmup_batches": -1.0}, "lr_warmup_batches is -1.0, it must not be negative"),
        ({"seed": -1}, "seed is -1, it must not be negative"),
        ({"seed": 2**32}, "seed is 4294967296, it must be at most 4294967295"),
    ],
)
def test_numbers_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)


def test_a_checkpoint_needs_an_average_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"save_every_n \(100\) is below average_period \(200\)"):
        TrainConfig(save_every_n=100)


def test_one_sort_of_low_precision() -> None:
    with pytest.raises(ConfigError, match="use_fp16 and use_bf16 are both on"):
        TrainConfig(use_fp16=True, use_bf16=True)
