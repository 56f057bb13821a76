"""A corpus of a dozen short noises, and a model small enough to train in a test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data import corpora
from snowmelt.presets.models import ZipformerConfig
from snowmelt.presets.training import DataConfig, TrainConfig

WORDS = ("ONE", "TWO", "THREE")


@dataclass(frozen=True)
class NoiseCorpus:
    """Utterances of 0.6 to 1.2 s of noise whose words mean nothing."""

    folder: Path
    name: str = "noise"

    def prepare(self, archive: Path | None = None) -> None:
        """Write the sound files."""
        rng = np.random.default_rng(1)
        self.folder.mkdir(parents=True)
        for i in range(12):
            samples = rng.normal(0, 0.1, 9600 + 800 * i).astype(np.float32)
            soundfile.write(self.folder / f"utt{i:02d}.wav", samples, 16000)

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """Eight utterances to train on, four for dev."""
        files = sorted(self.folder.glob("*.wav"))
        chosen = files[:8] if split == "train" else files[8:]
        cuts = []
        for i, path in enumerate(chosen):
            recording = Recording.from_file(path)
            cut = recording.to_cut()
            cut.supervisions = [
                SupervisionSegment(
                    id=path.stem,
                    recording_id=recording.id,
                    start=0.0,
                    duration=recording.duration,
                    text=f"{WORDS[i % 3]} {WORDS[(i + 1) % 3]}",
                )
            ]
            cuts.append(cut)
        return CutSet.from_cuts(cuts)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the noise corpus prepared in it."""
    monkeypatch.setitem(corpora._CORPORA, "noise", lambda folder, seed: NoiseCorpus(folder))
    NoiseCorpus(tmp_path / "data" / "noise").prepare()
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
