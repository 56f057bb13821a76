"""A small healthy corpus of noise bursts on disk, to plant defects in."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

RATE = 16_000
SPLITS = {"train": 40, "dev": 6, "test": 6}
TEXTS = ("ONE TWO THREE", "FOUR FIVE", "SIX SEVEN EIGHT NINE", "TEN ELEVEN TWELVE")


def burst(seed: int, seconds: float) -> npt.NDArray[np.float32]:
    """Noise whose loudness changes as that of speech does."""
    random = np.random.default_rng(seed)
    num_samples = round(seconds * RATE)
    loudness = np.interp(
        np.arange(num_samples),
        np.arange(0, num_samples + 1600, 1600),
        random.uniform(0.02, 1.0, len(np.arange(0, num_samples + 1600, 1600))),
    )
    samples: npt.NDArray[np.float32] = (0.1 * loudness * random.normal(size=num_samples)).astype(
        np.float32
    )
    return samples


def write(path: Path, samples: npt.NDArray[np.float32], rate: int = RATE) -> None:
    soundfile.write(path, samples, rate)


def cut(name: str, path: Path, text: str, speaker: str, num_samples: int) -> MonoCut:
    seconds = num_samples / RATE
    recording = Recording(
        id=name,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=RATE,
        num_samples=num_samples,
        duration=seconds,
    )
    supervision = SupervisionSegment(name, name, 0.0, seconds, text=text, speaker=speaker)
    return MonoCut(name, 0.0, seconds, 0, supervisions=[supervision], recording=recording)


def corpus(folder: Path) -> dict[str, list[MonoCut]]:
    """Split -> cuts; ten characters a second, more or less, and speakers of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts: dict[str, list[MonoCut]] = {}
    seed = 0
    for split, number in SPLITS.items():
        cuts[split] = []
        for n in range(number):
            seed += 1
            text = TEXTS[n % len(TEXTS)]
            seconds = 0.1 * len(text) * (0.7 + 0.8 * n / number)
            samples = burst(seed, seconds)
            name = f"{split}-{n:02d}"
            path = folder / f"{name}.wav"
            write(path, samples)
            cuts[split].append(cut(name, path, text, f"{split}-{n % 3}", len(samples)))
    return cuts
