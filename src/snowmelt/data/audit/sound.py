"""What does an utterance sound like, in numbers that tell whether its recording is sound?

Invariant: whatever is wrong with a file is a fact that is returned, never an exception; a file is
never run, and one utterance at a time is in memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from lhotse.cut import Cut, MonoCut

from snowmelt.audio.read import info
from snowmelt.core.errors import UserError
from snowmelt.core.files import is_lfs_pointer
from snowmelt.data.cuts import AudioCache, load_samples
from snowmelt.data.shards import sound_place

__all__ = ["FINGERPRINT_SIZE", "SoundFacts", "sound_facts"]

Problem = Literal["", "missing", "lfs-pointer", "unreadable", "wrong-rate"]

# A frame is as long as a window of the features.
_FRAME_S: Final = 0.025
# So far below the loudest frame there is no speech any more.
_SPEECH_RANGE_DB: Final = 40.0
# Digital silence in decibels.
_FLOOR_DB: Final = -120.0

# Samples this near to the loudest one, so many of them in a row, are a wave with its top cut off.
_TOP: Final = 0.999
_TOP_RUN: Final = 3

# An utterance as a small picture: energies of bands in as many pieces of its time.
_PIECES: Final = 64
_BANDS: Final = 4
FINGERPRINT_SIZE: Final = _PIECES * _BANDS


@dataclass(frozen=True, eq=False)
class SoundFacts:
    """Of one utterance.

    Attributes:
        cut_id: whose.
        path: its sound file; empty if the manifest names none.
        problem: why it could not be read; empty if it could.
        detail: the reason in words.
        num_samples: samples that were decoded.
        level_db: root mean square of the loudest frame of 25 ms, decibels of full scale.
        speech_s: seconds between the first and the last frame that is less than 40 dB below it.
        clipped: share of the samples that lie on a flat top.
        digest: of the decoded samples in 16 bits, without zeros at the ends: the same for a copy
            in another lossless format.
        fingerprint: (256,) float16, energies over time and frequency with mean 0 and length 1:
            nearly the same for a copy that was compressed or made louder.
    """

    cut_id: str
    path: str
    problem: Problem = ""
    detail: str = ""
    num_samples: int = 0
    level_db: float = _FLOOR_DB
    speech_s: float = 0.0
    clipped: float = 0.0
    digest: str = ""
    fingerprint: npt.NDArray[np.float16] | None = None


def sound_facts(cuts: Sequence[Cut]) -> list[SoundFacts]:
    """Listen to utterances, in order; those of one recording should stand together."""
    cache = AudioCache()
    return [_facts(cut, cache) for cut in cuts]


def _facts(cut: Cut, cache: AudioCache) -> SoundFacts:
    path = _path(cut)
    problem, detail = _file_problem(cut, path)
    if problem:
        return SoundFacts(cut.id, path, problem, detail)
    try:
        samples = load_samples(cut, cache)
    except UserError as error:
        return SoundFacts(cut.id, path, "unreadable", error.message)
    return _measured(cut.id, path, samples, int(cut.sampling_rate))


def _path(cut: Cut) -> str:
    """The file of a cut of a single file; mixes and shards are looked at by their samples alone."""
    if sound_place(cut):
        return ""
    if isinstance(cut, MonoCut) and cut.has_recording and len(cut.recording.sources) == 1:
        source = cut.recording.sources[0]
        return str(source.source) if source.type == "file" else ""
    return ""


def _file_problem(cut: Cut, path: str) -> tuple[Problem, str]:
    if not path:
        return "", ""
    if not Path(path).exists():
        return "missing", f"{path} does not exist"
    if is_lfs_pointer(path):
        return "lfs-pointer", f"{path} is a git-lfs pointer, not the sound itself"
    try:
        rate = info(path).sample_rate
    except UserError as error:
        return "unreadable", error.message
    # A copy at another speed has the rate that its recording had.
    stated = int(cut.recording.sampling_rate)
    if rate != stated:
        return "wrong-rate", f"{path} has {rate} Hz, the manifest says {stated}"
    return "", ""


def _measured(
    cut_id: str, path: str, samples: npt.NDArray[np.float32], sample_rate: int
) -> SoundFacts:
    frame_len = max(1, round(_FRAME_S * sample_rate))
    levels = _levels(samples, frame_len)
    loudest = float(levels.max(initial=_FLOOR_DB))
    loud = np.flatnonzero(levels > max(loudest - _SPEECH_RANGE_DB, _FLOOR_DB))
    speech = (loud[-1] - loud[0] + 1) * frame_len if len(loud) else 0
    return SoundFacts(
        cut_id,
        path,
        num_samples=len(samples),
        level_db=loudest,
        speech_s=float(min(speech, len(samples)) / sample_rate),
        clipped=_clipped_share(samples),
        digest=_digest(samples),
        fingerprint=_fingerprint(samples),
    )


def _levels(samples: npt.NDArray[np.float32], frame_len: int) -> npt.NDArray[np.float64]:
    """Decibels of frames that do not overlap; what is left over at the end is a frame too."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % frame_len))
    power = np.square(padded.reshape(-1, frame_len)).mean(axis=1)
    levels: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10)))
    return levels


def _clipped_share(samples: npt.NDArray[np.float32]) -> float:
    """Of the samples, those in a row of equal extremes: a microphone draws no straight lines."""
    size = np.abs(samples)
    peak = size.max(initial=0.0)
    if peak == 0.0:
        return 0.0
    # Signs count: a jump from one rail to the other goes on with neither.
    on_top = np.where(size >= _TOP * peak, np.sign(samples), 0.0)
    edges = np.flatnonzero(np.diff(on_top, prepend=0.0, append=0.0))
    starts, ends = edges[:-1], edges[1:]
    lens = (ends - starts)[on_top[starts] != 0.0]
    return float(lens[lens >= _TOP_RUN].sum() / len(samples))


def _digest(samples: npt.NDArray[np.float32]) -> str:
    whole = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
    present = np.flatnonzero(whole)
    if not len(present):
        return ""
    return hashlib.sha256(whole[present[0] : present[-1] + 1].tobytes()).hexdigest()


def _fingerprint(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float16] | None:
    """None where there is nothing to compare."""
    piece_len = len(samples) // _PIECES
    if piece_len < 2 * _BANDS:
        return None
    pieces = samples[: piece_len * _PIECES].reshape(_PIECES, piece_len)
    power = np.square(np.abs(np.fft.rfft(pieces, axis=1)))[:, 1:]
    # Octaves from the top: speech has as much to tell in each.
    starts = [0, *(power.shape[1] >> n for n in range(_BANDS - 1, 0, -1))]
    energies = np.add.reduceat(power, starts, axis=1)
    picture = np.log(energies + 1e-6 * energies.max() + 1e-20).ravel()
    picture -= picture.mean()
    norm = float(np.linalg.norm(picture))
    return None if norm == 0.0 else (picture / norm).astype(np.float16)
