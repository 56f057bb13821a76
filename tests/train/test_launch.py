"""How a run is settled from what the user asks for: settings, checkpoint, tokenizer, processes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import CheckpointError, ConfigError, DataError, UserError
from snowmelt.text.tokenizer import build_chars
from snowmelt.train.elastic import num_cores
from snowmelt.train.launch import RunPlan, default_exp_dir, prepare_run, run_settings, start_run
from tests.train.checkpoints import write_position

_SETTINGS = ("preset", "corpus", "mix", "overrides", "assignments")


def _prepare(data_dir: Path, **changes: Any) -> RunPlan:
    arguments: dict[str, Any] = {
        "preset": "digits",
        "corpus": "noise",
        "mix": None,
        "overrides": {},
        "assignments": [],
        "exp_dir": data_dir.parent / "exp",
        "data_dir": data_dir,
        "manifest_dir": data_dir / "fbank",
        "musan_dir": None,
        "bpe_model": None,
        "device": "cpu",
        "world_size": "1",
        "tensorboard": False,
        "inf_check": False,
        "print_diagnostics": False,
        "resume": "no",
        "start_epoch": 1,
        "start_batch": 0,
    }
    arguments |= changes
    config = run_settings(**{name: arguments.pop(name) for name in _SETTINGS})
    return prepare_run(config, **arguments)


def test_what_is_said_last_counts(data_dir: Path) -> None:
    plan = _prepare(
        data_dir,
        preset="zipformer-small",
        overrides={
            "data": {"max_duration": None, "tokenizer": "words", "enable_musan": False},
            "train": {"seed": 1, "base_lr": 0.01},
        },
        assignments=["train.seed=2", "model.dropout=0.2"],
    )
    assert plan.config.model.encoder_dims[0] == 192 and plan.config.model.dropout == 0.2
    assert plan.config.train.seed == 2 and plan.config.train.base_lr == 0.01
    assert plan.config.data.max_duration == 200.0  # the preset's


def test_the_tokenizer_is_that_of_the_transcripts(data_dir: Path) -> None:
    plan = _prepare(data_dir)
    assert plan.tokenizer.kind == "words" and plan.tokenizer.vocab_size == 6
    assert len(plan.config.vocabulary_hash) == 64
    chars = {"data": {"tokenizer": "chars"}}
    assert _prepare(data_dir, overrides=chars).tokenizer.kind == "chars"
    bpe = {"data": {"tokenizer": "bpe", "vocab_size": 12}}
    plan = _prepare(data_dir, overrides=bpe)
    assert plan.tokenizer.vocab_size == 12
    plan.tokenizer.save(data_dir / "lang")
    given = _prepare(data_dir, bpe_model=data_dir / "lang" / "bpe.model")
    assert given.config.vocabulary_hash == plan.config.vocabulary_hash


def test_a_prepared_vocabulary_is_taken(data_dir: Path) -> None:
    # Another language's: what is taken is what lies there.
    build_chars(["день ночь"]).save(data_dir / "noise" / "lang")
    plan = _prepare(data_dir, takes_prepared_vocabulary=True)
    assert plan.tokenizer.kind == plan.config.data.tokenizer == "chars"
    assert "ж" not in plan.tokenizer.id_to_token and "н" in plan.tokenizer.id_to_token
    assert _prepare(data_dir).tokenizer.kind == "words"
    (data_dir / "noise" / "lang").rename(data_dir / "noise" / "away")
    assert _prepare(data_dir, takes_prepared_vocabulary=True).tokenizer.kind == "words"


def _settings(**changes: Any) -> ExperimentConfig:
    nothing: dict[str, Any] = {"corpus": None, "mix": None, "overrides": {}, "assignments": []}
    return run_settings(**{**nothing, **changes})


def test_settings_need_no_data() -> None:
    assert _settings(preset="zipformer").data.corpus == "librispeech"
    mixed = _settings(
        preset="lstm",
        mix={"librispeech": 0.5, "gigaspeech": 0.5},
        overrides={"data": {"speed_perturb": False, "enable_spec_aug": None}},
    )
    # What is asked for holds for every corpus of a mix.
    assert [part.speed_perturb for part in mixed.data.parts] == [False, False]
    assert [part.enable_spec_aug for part in mixed.data.parts] == [True, True]


def test_what_is_missing_is_found_before_a_process_starts(data_dir: Path) -> None:
    noise = {"data": {"enable_musan": True}}
    with pytest.raises(DataError, match="no noise in"):
        _prepare(data_dir, overrides=noise, musan_dir=data_dir / "fbank")
    assert _prepare(data_dir, overrides=noise, musan_dir=data_dir / "noise").config
    assert not (data_dir.parent / "exp").exists()


def test_models_corpora_and_mixes_combine(data_dir: Path) -> None:
    words = {"data": {"tokenizer": "words", "enable_musan": False}}
    plan = _prepare(data_dir, preset="lstm-small", overrides=words)
    assert plan.config.model.encoder == "lstm" and plan.config.train.optimizer == "eve"
    assert default_exp_dir("lstm-small", plan.config) == Path("runs/noise-lstm-small")
    mix = {"noise": 0.25, "murmur": 0.75}
    plan = _prepare(data_dir, corpus=None, mix=mix)
    assert plan.config.data.corpus == "noise" and plan.config.data.extra_heads == ("murmur",)
    assert default_exp_dir("digits", plan.config) == Path("runs/noise+murmur-digits")
    assert default_exp_dir("an4", _settings(preset="an4")) == Path("runs/an4")


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
        ({"corpus": "klingon"}, DataError, "no corpus 'klingon'"),
        ({"mix": {"noise": 0.5, "murmur": 0.4}}, ConfigError, "add up to 0.9, not to 1"),
        ({"mix": {"murmur": 1.0}}, ConfigError, "the mix begins with murmur"),
        (
            {"overrides": {"model": {"rnn_hidden_size": 64}}},
            ConfigError,
            "--rnn-hidden-size is no setting of zipformer models",
        ),
        ({"bpe_model": Path("no/bpe.model")}, DataError, "bpe.model does not exist"),
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
            {"overrides": {"data": {"enable_spec_aug": True, "spec_aug_time_warp_factor": 80}}},
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
    assert _prepare(data_dir, world_size="3").config.data.max_duration == 40.0
    # torchrun has started them already.
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="WORLD_SIZE=4, but not which RANK this is .*torchrun"):
        _prepare(data_dir)
    monkeypatch.setenv("RANK", "0")
    assert _prepare(data_dir, world_size="auto").world_size == 4
    assert _prepare(data_dir, world_size="4").world_size == 4
    with pytest.raises(ConfigError, match="--world-size 2, but torchrun has started 4 processes"):
        _prepare(data_dir, world_size="2")


def test_one_process_computes_on_mps(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snowmelt.train.launch.pick_device", lambda name: torch.device("mps"))
    assert _prepare(data_dir, world_size="auto").world_size == 1
    with pytest.raises(ConfigError, match="--world-size 2: one process computes on mps"):
        _prepare(data_dir, world_size="2")


@pytest.mark.parametrize("option", ["max_restarts", "master_port"])
def test_options_that_are_torchruns(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    plan = _prepare(data_dir)
    monkeypatch.setenv("WORLD_SIZE", "1")
    flag = "--" + option.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{flag} has no meaning here: torchrun has started"):
        start_run(plan, **{option: 1})


def test_processes_of_a_cpu_share_the_batch(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _prepare(data_dir, world_size="1").config.data.max_duration
    for cores in (1, 2, 8):
        monkeypatch.setattr("snowmelt.train.launch.num_cores", lambda cores=cores: cores)
        plan = _prepare(data_dir, world_size="auto")
        assert plan.config.data.max_duration * plan.world_size == whole
    # Who starts the processes himself says what each of them takes.
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert _prepare(data_dir, world_size="auto").config.data.max_duration == whole


def test_only_the_first_process_looks_for_checkpoints(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_position(data_dir.parent / "exp" / "epoch-1.pt", 2, 12)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert _prepare(data_dir, world_size="auto").options.resume_from is None
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
        _prepare(data_dir, world_size="auto")
    # Processes that were started again go on whatever was asked for at first.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _prepare(data_dir, world_size="auto").options.resume_from is None
