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


@pytest.mark.parametrize("name", ["zipformer-small", "lstm-small"])
def test_a_model_of_any_family_is_loaded(tmp_path: Path, name: str) -> None:
    config = ExperimentConfig(model=model_preset(name))
    save_experiment(tmp_path, config, build_words(["ONE TWO"]))
    assert load_experiment(tmp_path)[0].model == model_preset(name)


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_experiment(tmp_path, _config(), build_words(["ONE TWO"]))
    build_words(["ONE THREE"]).save(tmp_path / "lang")
    with pytest.raises(ConfigError, match="another vocabulary"):
        load_experiment(tmp_path)


def test_folder_without_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.yaml does not exist"):
        load_experiment(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", r"config\.yaml is not valid YAML"),
        ("model: 3", r"config\.yaml: model must be a mapping, got 3"),
        ("model: {decoder_dim: -4}", r"config\.yaml: decoder_dim is -4, it must be positive"),
        ("model: {encoder: rnn}", r"model\.encoder must be one of zipformer, lstm, got 'rnn'"),
        (
            "model: {encoder: lstm, encoder_dim: 99999}",
            r"config\.yaml: rnn_hidden_size is 1024, below encoder_dim 99999",
        ),
        ("train: {base_lr: fast}", r"config\.yaml: train\.base_lr must be float, got 'fast'"),
        ("features: {num_mel_bins: 40}", "the model takes 80 mel bins, features have 40"),
        ("min_tail_s: -1.0", "min_tail_s is -1.0, it must be from 0 to 10"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    save_experiment(tmp_path, _config(), build_words(["ONE TWO"]))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(tmp_path)
    assert str(caught.value).count("config.yaml") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("lang", r"folder .*lang does not exist"), ("lang/tokens.txt", r"tokens\.txt does not exist")],
)
def test_a_vocabulary_that_is_missing(tmp_path: Path, name: str, message: str) -> None:
    save_experiment(tmp_path, _config(), build_words(["ONE TWO"]))
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{message} \(hint: copy it from where the model was"):
        load_experiment(tmp_path)


def test_checkpoints_are_found_by_number(tmp_path: Path) -> None:
    for name in ("epoch-10.pt", "epoch-9.pt", "epoch-best.pt", "checkpoint-7.pt", "epoch-.pt"):
        (tmp_path / name).touch()
    assert list(numbered_checkpoints(tmp_path, "epoch").items()) == [
        (9, tmp_path / "epoch-9.pt"),
        (10, tmp_path / "epoch-10.pt"),
    ]
    assert list(numbered_checkpoints(tmp_path, "checkpoint")) == [7]
