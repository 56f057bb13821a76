"""In which form does a prepared corpus keep its sound? 16-bit WAV at 16 kHz, a lhotse cut each.

Invariant: what is written can be read back bit for bit.
"""

import wave
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

__all__ = ["SAMPLE_RATE", "to_int16", "whole_file_cut", "write_wav"]

SAMPLE_RATE: Final = 16000


def to_int16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1] as 16-bit integers, rounded to nearest; louder ones are clipped."""
    rounded = np.rint(samples * np.float32(32768.0))
    integers: npt.NDArray[np.int16] = np.clip(rounded, -32768, 32767).astype(np.int16)
    return integers


def write_wav(path: Path, samples: npt.NDArray[np.int16]) -> None:
    """Write 16 kHz mono WAV."""
    # Not with soundfile: of a full disk it only says "System error".
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def whole_file_cut(
    cut_id: str,
    file: str,
    num_samples: int,
    text: str,
    speaker: str,
    words: list[AlignmentItem] | None = None,
) -> MonoCut:
    """A lhotse cut over a whole 16 kHz file, named relative to the corpus folder."""
    duration = num_samples / SAMPLE_RATE
    recording = Recording(
        id=cut_id,
        sources=[AudioSource(type="file", channels=[0], source=file)],
        sampling_rate=SAMPLE_RATE,
        num_samples=num_samples,
        duration=duration,
    )
    supervision = SupervisionSegment(
        id=cut_id,
        recording_id=cut_id,
        start=0.0,
        duration=duration,
        text=text,
        language="English",
        speaker=speaker,
        alignment=None if words is None else {"word": words},
    )
    return MonoCut(
        id=cut_id,
        start=0.0,
        duration=duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )
