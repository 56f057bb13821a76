"""How a run is settled from what the user asks for: settings, checkpoint, tokenizer, processes."""

from pathlib import Path
from typing import Any

import pytest

from snowmelt.core.errors import CheckpointError, ConfigError, DataError, UserError
from snowmelt.train.distributed import num_cores
from snowmelt.train.launch import RunPlan, prepare_run
from tests.train.checkpoints import write_position


def _prepare(data_dir: Path, **changes: Any) -> RunPlan:
    arguments: dict[str, Any] = {
        "preset": "digits",
        "model_preset_name": None,
        "overrides": {"data": {"corpus": "noise"}},
        "assignments": [],
        "exp_dir": data_dir.parent / "exp",
        "data_dir": data_dir,
        "device": "cpu",
        "world_size": "1",
        "tensorboard": False,
        "resume": "no",
        "start_epoch": 1,
        "start_batch": 0,
    }
    return prepare_run(**{**arguments, **changes})


def test_what_is_said_last_counts(data_dir: Path) -> None:
    plan = _prepare(
        data_dir,
        model_preset_name="zipformer-small",
        overrides={
            "data": {"corpus": "noise", "max_duration": None},
            "train": {"seed": 1, "base_lr": 0.01},
        },
        assignments=["train.seed=2", "model.dropout=0.2"],
    )
    assert plan.config.model.encoder_dims[0] == 192 and plan.config.model.dropout == 0.2
    assert plan.config.train.seed == 2 and plan.config.train.base_lr == 0.01
    assert plan.config.data.max_duration == 20.0  # the preset's
    assert "seed: 2" in plan.config_text()


def test_the_tokenizer_is_that_of_the_transcripts(data_dir: Path) -> None:
    plan = _prepare(data_dir)
    assert plan.tokenizer.kind == "words" and plan.tokenizer.vocab_size == 6
    assert len(plan.config.vocabulary_hash) == 64
    chars = {"data": {"corpus": "noise", "tokenizer": "chars"}}
    assert _prepare(data_dir, overrides=chars).tokenizer.kind == "chars"
    bpe = {"data": {"corpus": "noise", "tokenizer": "bpe", "vocab_size": 12}}
    assert _prepare(data_dir, overrides=bpe).tokenizer.vocab_size == 12


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resume": "auto"}, "checkpoint-30.pt"),
        ({"start_epoch": 2}, "epoch-1.pt"),
        ({"start_batch": 20}, "checkpoint-20.pt"),
        ({"start_batch": 20, "start_epoch": 2}, "checkpoint-20.pt"),
        ({"start_epoch": 3, "resume": "auto"}, "epoch-2.pt"),
    ],
)
def test_where_a_run_goes_on(data_dir: Path, options: dict[str, Any], expected: str) -> None:
    exp_dir = data_dir.parent / "exp"
    for name, position in {
        "epoch-1.pt": (2, 12),
        "epoch-2.pt": (3, 24),
        "checkpoint-20.pt": (2, 20),
        "checkpoint-30.pt": (3, 30),
    }.items():
        write_position(exp_dir / name, *position)
    assert _prepare(data_dir, **options).options.resume_from == exp_dir / expected


def test_a_new_run_never_writes_over_an_old_one(data_dir: Path) -> None:
    assert _prepare(data_dir, resume="auto").options.resume_from is None
    write_position(data_dir.parent / "exp" / "epoch-1.pt", 2, 12)
    with pytest.raises(CheckpointError, match=r"holds checkpoints of an earlier run \(epoch-1"):
        _prepare(data_dir)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"preset": "klingon"}, ConfigError, "no preset 'klingon'"),
        ({"overrides": {"data": {"corpus": "klingon"}}}, DataError, "no corpus 'klingon'"),
        ({"overrides": {"data": {"tokenizer": "runes"}}}, ConfigError, "must be one of words"),
        ({"assignments": ["train.sed=1"]}, ConfigError, "did you mean 'seed'"),
        ({"device": "abacus"}, ConfigError, "no device 'abacus'"),
        ({"world_size": "0"}, ConfigError, "--world-size 0 is no number of processes"),
        ({"world_size": "two"}, ConfigError, "--world-size two is no number"),
        ({"world_size": "1000000"}, ConfigError, "--world-size 1000000: this machine has"),
        ({"start_epoch": 0}, ConfigError, "epochs count from 1"),
        ({"start_batch": -1}, ConfigError, "--start-batch 0 starts anew"),
        ({"start_epoch": 4}, UserError, r"epoch-3\.pt does not exist"),
        ({"start_batch": 7}, UserError, r"checkpoint-7\.pt does not exist"),
        (
            {"overrides": {"data": {"enable_spec_aug": True}}},
            ConfigError,
            "needs word times, which spec_aug_time_warp_factor would move",
        ),
    ],
)
def test_mistakes(
    data_dir: Path, changes: dict[str, Any], kind: type[UserError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        _prepare(data_dir, **changes)
    assert "\n" not in str(error.value)


def test_number_of_processes(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _prepare(data_dir, world_size="3").world_size == 3
    assert _prepare(data_dir, world_size="auto").world_size == num_cores()
    # torchrun has started them already.
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="WORLD_SIZE=4, but not which RANK this is .*torchrun"):
        _prepare(data_dir)
    monkeypatch.setenv("RANK", "0")
    assert _prepare(data_dir, world_size="auto").world_size == 4
