"""A prepared corpus, its tokenizer, and a model small enough to train in a test."""

from pathlib import Path

import pytest

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data import corpora
from snowmelt.presets.data import DataConfig
from snowmelt.presets.models import ZipformerConfig
from snowmelt.presets.training import TrainConfig
from snowmelt.text.tokenizer import Tokenizer, build_words
from tests.train.noise import NAMES, NoiseCorpus


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the noise corpora prepared in it."""
    for name in NAMES:
        monkeypatch.setitem(
            corpora._ARCHIVE_CORPORA, name, lambda folder, seed: NoiseCorpus(folder)
        )
        NoiseCorpus(tmp_path / "data" / name).prepare()
    return tmp_path / "data"


@pytest.fixture
def config() -> ExperimentConfig:
    """Two stacks of one layer; every schedule runs out within a few batches."""
    return ExperimentConfig(
        model=ZipformerConfig(
            num_encoder_layers=(1, 1),
            feedforward_dims=(16, 16),
            nhead=(2, 2),
            encoder_dims=(16, 16),
            attention_dims=(8, 8),
            encoder_unmasked_dims=(12, 12),
            zipformer_downsampling_factors=(1, 2),
            cnn_module_kernels=(5, 5),
            decoder_dim=16,
            joiner_dim=16,
        ),
        train=TrainConfig(
            num_epochs=2, schedule_scale=0.005, ctc_loss_scale=0.2, save_every_n=600, seed=7
        ),
        data=DataConfig(corpus="noise", max_duration=3.0, max_tail_s=0.2),
    )


@pytest.fixture
def tokenizer() -> Tokenizer:
    """The three words of the noise corpus."""
    return build_words(["ONE TWO THREE"])
