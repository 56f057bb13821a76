"""The settings of a language model and those of a transducer are not taken for one another."""

from pathlib import Path

import pytest

from snowmelt.checkpoint.experiment import ExperimentConfig, load_experiment, save_experiment
from snowmelt.checkpoint.lm_experiment import LmExperimentConfig, load_lm_experiment
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.presets.language_models import LM_PRESETS
from snowmelt.text.tokenizer import build_words, vocabulary_hash

WORDS = build_words(["A B"])


@pytest.mark.parametrize("preset", LM_PRESETS)
@pytest.mark.parametrize("lm_type", ["rnn", "transformer"])
def test_what_is_saved_is_loaded(tmp_path: Path, preset: str, lm_type: str) -> None:
    config = LmExperimentConfig(LM_PRESETS[preset][lm_type], vocabulary_hash=vocabulary_hash(WORDS))
    save_experiment(tmp_path, config, WORDS)
    loaded, tokenizer = load_lm_experiment(tmp_path)
    assert loaded == config and tokenizer.id_to_token == WORDS.id_to_token
    with pytest.raises(ConfigError, match="is of a language model, not of a transducer"):
        load_experiment(tmp_path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no config\.yaml \(hint: train one with"):
        load_lm_experiment(tmp_path)
    save_experiment(tmp_path, ExperimentConfig(), WORDS)
    with pytest.raises(CheckpointError, match="holds no language model, but another experiment"):
        load_lm_experiment(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {lm_type: gru}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml.*must be one of rnn, transformer"):
        load_lm_experiment(tmp_path)
