"""Whole small runs: files, logs, resuming, two processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig, load_experiment
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.errors import CheckpointError, UserError
from snowmelt.text.tokenizer import Tokenizer, build_words
from snowmelt.train.history import read_history
from snowmelt.train.resume import newest_checkpoint
from snowmelt.train.trainer import RunOptions, train


@pytest.fixture
def tokenizer() -> Tokenizer:
    return build_words(["ONE TWO THREE"])


def _options(exp_dir: Path, data_dir: Path, resume_from: Path | None = None) -> RunOptions:
    return RunOptions(
        exp_dir=exp_dir, data_dir=data_dir, tensorboard=False, resume_from=resume_from
    )


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    saved = load_checkpoint(path)
    return {**saved["model"], **{f"avg.{k}": v for k, v in saved["snowmelt"]["model_avg"].items()}}


def test_files_and_log_of_a_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    train(config, tokenizer, _options(exp_dir, data_dir))
    names = {p.name for p in exp_dir.iterdir()}
    assert {"epoch-1.pt", "epoch-2.pt", "best-valid-loss.pt", "config.yaml", "lang"} <= names
    assert any(n.startswith("checkpoint-") for n in names)
    log = next((exp_dir / "log").glob("log-train-*")).read_text()
    assert "Number of model parameters" in log
    assert "Epoch 1, batch 0, loss[loss=" in log
    assert "Epoch 2, validation: loss=" in log
    records = read_history(exp_dir)
    batches = [r["batch"] for r in records if r["kind"] == "train"]
    assert batches == list(range(1, len(batches) + 1))
    read_config, read_tokenizer = load_experiment(exp_dir)
    assert read_config.model == config.model
    assert read_tokenizer.encode("TWO") == tokenizer.encode("TWO")


def test_a_resumed_run_is_the_same_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    whole = tmp_path / "whole"
    train(config, tokenizer, _options(whole, data_dir))
    expected = _tensors(whole / "epoch-2.pt")
    mid_epoch = sorted(whole.glob("checkpoint-*.pt"))[0]
    for start in (mid_epoch, whole / "epoch-1.pt"):
        resumed = tmp_path / f"resumed-{start.stem}"
        resumed.mkdir()
        (resumed / start.name).write_bytes(start.read_bytes())
        train(config, tokenizer, _options(resumed, data_dir, resumed / start.name))
        got = _tensors(resumed / "epoch-2.pt")
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[k], expected[k]) for k in expected), start.name


def test_checkpoint_of_another_model_is_refused(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    config = replace(config, train=replace(config.train, num_epochs=1))
    train(config, tokenizer, _options(exp_dir, data_dir))
    wider = replace(config, model=replace(config.model, joiner_dim=24))
    with pytest.raises(CheckpointError, match="does not fit this model") as error:
        train(wider, tokenizer, _options(tmp_path / "b", data_dir, exp_dir / "epoch-1.pt"))
    assert "\n" not in str(error.value)


def test_newest_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name in ("epoch-1.pt", "checkpoint-7.pt"):
        (tmp_path / name).write_bytes(b"x")
    assert newest_checkpoint(tmp_path) is not None


def test_corpus_without_usable_utterance(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, data=replace(config.data, min_utterance_s=5.0))
    with pytest.raises(UserError, match="no utterance of noise can be learnt from"):
        train(config, tokenizer, _options(tmp_path / "exp", data_dir))


def test_history_is_json_lines(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, train=replace(config.train, num_epochs=1))
    train(config, tokenizer, _options(tmp_path / "exp", data_dir))
    lines = (tmp_path / "exp" / "tensorboard" / "history.jsonl").read_text().splitlines()
    assert all(json.loads(line)["loss"] > 0 for line in lines)
