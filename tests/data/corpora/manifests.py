"""Manifests as a preparation leaves them, with tiny FLAC files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut

from snowmelt.data.corpora.wav import whole_file_cut


def flac_cut(root: Path, file: str, text: str = "A B", num_samples: int = 1600) -> MonoCut:
    """A cut over a new FLAC file, which its recording names relative to `root`."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(file.encode()))
    soundfile.write(path, rng.uniform(-0.5, 0.5, num_samples), 16000)
    return whole_file_cut(path.stem, file, num_samples, text, path.stem.partition("-")[0])


def write_part(folder: Path, corpus: str, part: str, num_cuts: int = 1, file: str = "") -> None:
    """The manifest of a part, of cuts called <part>-0, <part>-1, ..."""
    cuts = [flac_cut(folder, f"audio/{part}-{n}.flac") for n in range(num_cuts)]
    write_manifest(folder / (file or f"{corpus}_cuts_{part}.jsonl.gz"), cuts)


def write_manifest(path: Path, cuts: Sequence[MonoCut]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    CutSet.from_cuts(cuts).to_file(path)
