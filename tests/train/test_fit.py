"""Whether a run fits into memory is asked once, and the run does not notice."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import TrainingError
from snowmelt.presets.data import MixPart
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train import memory
from snowmelt.train.build import new_state
from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.distributed import Ranks
from snowmelt.train.fit import check_memory

CPU = torch.device("cpu")


@pytest.fixture
def mixed(config: ExperimentConfig) -> ExperimentConfig:
    mix = (MixPart("noise", 0.3), MixPart("murmur", 0.7))
    return replace(config, data=replace(config.data, mix=mix))


def _check(config: ExperimentConfig, tokenizer: Tokenizer, data_dir: Path) -> None:
    data = TrainingCorpora(
        config, tokenizer, Ranks(), data_dir=data_dir, manifest_dir=data_dir, musan_dir=data_dir
    )
    state = new_state(config, tokenizer.vocab_size, CPU, Ranks())
    before = torch.get_rng_state()
    check_memory(state, data, data.plan(1, first_step=0, positions={}), config, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in state.objective.parameters())


def test_each_corpus_is_estimated(
    data_dir: Path,
    mixed: ExperimentConfig,
    tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        _check(mixed, tokenizer, data_dir)
    assert sum(message.startswith("memory: ") for message in caplog.messages) == 2


def test_what_cannot_fit_is_refused_before_the_first_step(
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1)
    with pytest.raises(TrainingError, match="training needs about"):
        _check(config, tokenizer, data_dir)
