"""How does speech get a noisy background? Pieces of noise are mixed into the features.

Invariant: which noise an utterance gets, and how loud, is a function of the generator alone, and
it reaches exactly as far as the utterance.

Source: lhotse, lhotse/dataset/cut_transforms/mix.py and lhotse/features/fbank.py, with the settings
of icefall's recipes (MUSAN, Snyder et al. 2015). Two deliberate differences. There the noise goes
on to the end of the longest utterance of the batch (pad_to_longest), so that a short one is
followed by noise: here rows do not depend on batch mates. There the energies that are compared are
sums over all frames of an utterance and of a piece, so that a piece of one second under fifteen of
speech is fifteen times too loud: here they are means per frame, and each piece has the ratio that
was drawn. Where a piece is as long as the utterance, both are the same.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from lhotse import AudioSource, CutSet, Recording
from lhotse.cut import Cut

from snowmelt.audio.read import info
from snowmelt.core.errors import DataError
from snowmelt.data.corpora.manifests import find_manifest, load_manifest
from snowmelt.data.features import FeatureReader

__all__ = ["NOISE_SUFFIXES", "NoiseMixer", "load_noise", "noise_windows"]

_MUSAN_MANIFEST: Final = "musan_cuts"

_WINDOW_S: Final = 10.0
# A rest of a recording that is not longer is dropped; a whole recording may be short.
_MIN_REST_S: Final = 5.0
_MIN_PIECE_S: Final = 0.1
# So few frames at the end of an utterance get no piece of their own.
_TOLERANCE_FRAMES: Final = 5
_MIN_ENERGY: Final = 1e-10
NOISE_SUFFIXES: Final = frozenset({".wav", ".flac", ".opus", ".ogg", ".mp3", ".sph", ".aiff"})
"""Files that are taken for sound."""


class NoiseMixer:
    """Mixes noise into the features of some utterances.

    Args:
        pieces: what noise there is; each is as likely as any other.
        reader: gives the features of pieces.
        probability: of an utterance to get noise.
        snr_range_db: the ratio of speech to noise is drawn uniformly between these.

    Raises:
        DataError: there are no pieces of any length.
    """

    def __init__(
        self,
        pieces: Iterable[Cut],
        reader: FeatureReader,
        *,
        probability: float = 0.5,
        snr_range_db: tuple[float, float] = (10.0, 20.0),
    ) -> None:
        self._pieces = [piece for piece in pieces if piece.duration >= _MIN_PIECE_S]
        if not self._pieces:
            raise DataError("there is no noise to mix in", "switch it off: --enable-musan false")
        self._reader = reader
        self._probability = probability
        self._snr_range_db = snr_range_db

    def mix(self, features: npt.NDArray[np.float32], rng: random.Random) -> npt.NDArray[np.float32]:
        """An utterance with noise from its first to its last frame, or as it was.

        Args:
            features: (T, F) float32 log-mel features of one utterance.
            rng: source of all draws.

        Returns:
            (T, F) float32; `features` itself when no noise was drawn. With energies exp(features),
            log(max(1e-10, exp(speech) + g exp(noise))), where g makes the mean energy of a piece
            that of the utterance divided by 10^(snr / 10).

        Raises:
            UserError: a piece cannot be read.
        """
        if rng.random() >= self._probability:
            return features
        snr_db = rng.uniform(*self._snr_range_db)
        energies = np.exp(features.astype(np.float64))
        wanted = energies.mean() * 10.0 ** (-snr_db / 10.0)
        start = 0
        while start == 0 or len(features) - start > _TOLERANCE_FRAMES:
            piece = self._pieces[rng.randrange(len(self._pieces))]
            noise = self._reader.read(piece, max_frames=len(features) - start)
            noise_energies = np.exp(noise.astype(np.float64))
            energies[start : start + len(noise)] += wanted / noise_energies.mean() * noise_energies
            start += len(noise)
        return np.log(np.maximum(energies, _MIN_ENERGY)).astype(np.float32)


def load_noise(path: Path) -> CutSet:
    """Pieces of noise.

    Args:
        path: a manifest of cuts; or a folder that holds `musan_cuts.jsonl.gz`; or a folder with
            sound files in it and in the folders below, as MUSAN has them. Files are taken in
            windows of 10 s; what is left at the end of a file counts if it is longer than 5 s.

    Raises:
        DataError: there is no noise, or a file cannot be read.
    """
    if path.is_file():
        return load_manifest(path)
    manifest = find_manifest(path, _MUSAN_MANIFEST)
    if manifest is not None:
        return load_manifest(manifest)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in NOISE_SUFFIXES)
    if not files:
        raise DataError(
            f"no noise in {path}: it holds neither {_MUSAN_MANIFEST}.jsonl.gz nor sound files",
            "prepare MUSAN, or switch noise off: --enable-musan false",
        )
    return CutSet.from_cuts(piece for file in files for piece in _pieces(file, path))


def noise_windows(recording: Recording) -> list[Cut]:
    """A recording in windows of 10 s, called `<its id>-<n>`.

    What is left at its end counts if it is longer than 5 s. A recording shorter than a window is
    one piece, however short.

    Source: icefall, egs/librispeech/ASR/local/compute_fbank_musan.py, which drops short recordings.
    """
    return [
        window.with_id(f"{recording.id}-{n}")
        for n, window in enumerate(recording.to_cut().cut_into_windows(_WINDOW_S))
        if n == 0 or window.duration > _MIN_REST_S
    ]


def _pieces(file: Path, folder: Path) -> list[Cut]:
    num_samples, rate = info(file)
    whole = Recording(
        id=file.relative_to(folder).as_posix(),
        sources=[AudioSource(type="file", channels=[0], source=str(file))],
        sampling_rate=rate,
        num_samples=num_samples,
        duration=num_samples / rate,
    )
    return noise_windows(whole)
