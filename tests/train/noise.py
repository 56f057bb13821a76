"""A corpus of a dozen short noises, and runs on it in processes of their own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data import corpora
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.trainer import RunOptions, train

# The same noises under two names: where a test wants several corpora.
NAMES = ("noise", "murmur")
WORDS = ("ONE", "TWO", "THREE")


@dataclass(frozen=True)
class NoiseCorpus:
    """Utterances of 0.6 to 1.2 s of noise whose words mean nothing."""

    folder: Path
    name: str = "noise"
    varies_with_epoch: bool = False
    test_sets: tuple[str, ...] = ("test",)
    # Dev and test are the same.
    known_defects: frozenset[str] = frozenset({"duplicate-across-splits"})

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


def train_on_noise(config: ExperimentConfig, tokenizer: Tokenizer, options: RunOptions) -> None:
    """`train` in a process of its own, which has to be told about the corpora."""
    for name in NAMES:
        corpora._ARCHIVE_CORPORA[name] = lambda folder, seed: NoiseCorpus(folder)  # type: ignore[index]
    train(config, tokenizer, options)
