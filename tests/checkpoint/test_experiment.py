"""The folder of an experiment: settings and tokenizer go out and come back, files are found."""

from pathlib import Path

import pytest

from snowmelt.checkpoint.experiment import (
    ExperimentConfig,
    load_experiment,
    numbered_checkpoints,
    save_experiment,
)
from snowmelt.core.errors import ConfigError, UserError
from snowmelt.presets.models import model_preset
from snowmelt.text.tokenizer import build_words, vocabulary_hash


def _config() -> ExperimentConfig:
    tokenizer = build_words(["ONE TWO"])
    return ExperimentConfig(
        model=model_preset("zipformer-tiny"), vocabulary_hash=vocabulary_hash(tokenizer)
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_experiment(tmp_path, _config(), build_words(["ONE TWO"]))
    config, tokenizer = load_experiment(tmp_path)
    assert config == _config()
    assert tokenizer.encode("TWO ONE") == [4, 3]


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_experiment(tmp_path, _config(), build_words(["ONE TWO"]))
    build_words(["ONE THREE"]).save(tmp_path / "lang")
    with pytest.raises(ConfigError, match="another vocabulary"):
        load_experiment(tmp_path)


def test_folder_without_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.yaml does not exist"):
        load_experiment(tmp_path)


def test_checkpoints_are_found_by_number(tmp_path: Path) -> None:
    for name in ("epoch-10.pt", "epoch-9.pt", "epoch-best.pt", "checkpoint-7.pt", "epoch-.pt"):
        (tmp_path / name).touch()
    assert list(numbered_checkpoints(tmp_path, "epoch").items()) == [
        (9, tmp_path / "epoch-9.pt"),
        (10, tmp_path / "epoch-10.pt"),
    ]
    assert list(numbered_checkpoints(tmp_path, "checkpoint")) == [7]
