"""Cuts over sounds and stored features that a test writes, and a tokenizer of letters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from lhotse import Features, MonoCut

from snowmelt.data.corpora.wav import whole_file_cut


class LetterTokenizer:
    """A token for every letter, the simplest thing that can be counted."""

    vocab_size = 30
    blank_id = 0
    sos_eos_id = 1
    unk_id = 2

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("A") + 3 for letter in text if letter != " "]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.id_to_token[i] for i in ids)

    @property
    def id_to_token(self) -> list[str]:
        return ["<blk>", "<sos/eos>", "<unk>", *(chr(ord("A") + n) for n in range(27))]

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def noise_cut(folder: Path, name: str, num_samples: int, text: str = "A B") -> MonoCut:
    """A cut over a new WAV file of noise; the name is the seed."""
    rng = np.random.default_rng(list(name.encode()))
    path = folder / f"{name}.wav"
    soundfile.write(path, rng.uniform(-0.5, 0.5, num_samples), 16000, subtype="PCM_16")
    return whole_file_cut(name, str(path), num_samples, text, "someone")


def with_stored_features(
    cut: MonoCut, folder: Path, features: npt.NDArray[np.float32], frame_shift_s: float = 0.01
) -> MonoCut:
    """The cut, its features saved as lhotse's plain storage does it."""
    key = f"{cut.id[:3]}/{cut.id}.npy"
    (folder / key).parent.mkdir(exist_ok=True)
    np.save(folder / key, features)
    cut.features = Features(
        type="fbank",
        num_frames=len(features),
        num_features=features.shape[1],
        frame_shift=frame_shift_s,
        sampling_rate=16000,
        start=cut.start,
        duration=cut.duration,
        storage_type="numpy_files",
        storage_path=str(folder),
        storage_key=key,
        recording_id=cut.recording_id,
        channels=0,
    )
    return cut
