"""Tiny archives in the layout of the real ones, with sounds of a few milliseconds."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

DIGITS = {"0": "ZERO", "1": "ONE"}
SPEAKERS = ("ann", "bob")


def wav_bytes(num_samples: int, sample_rate: int, seed: int) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, samples, sample_rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def digits_archive(path: Path) -> Path:
    """2 speakers x 2 digits x indices 0-13 at 8 kHz, 400 + 10 n samples long."""
    table = "file\tsplit\tspeaker\ttext\tsamples_8khz\n"
    members = {"digits/LICENSE": b"CC BY-SA 4.0"}
    for n in range(14):
        for digit, text in DIGITS.items():
            for speaker in SPEAKERS:
                name = f"recordings/{digit}_{speaker}_{n}.wav"
                num_samples = 400 + 10 * n
                members[f"digits/{name}"] = wav_bytes(num_samples, 8000, len(members))
                split = "test" if n < 5 else "train"
                table += f"{name}\t{split}\t{speaker}\t{text}\t{num_samples}\n"
    return write_tar(path, {"digits/transcripts.tsv": table.encode(), **members})


def an4_archive(path: Path) -> Path:
    """Two training speakers, one of them of the dev set, and a test speaker."""
    table = "file\tsplit\tspeaker\tsamples_16khz\ttext\n"
    members = {f"an4/{name}": b"text" for name in ("LICENSE", "an4.dic", "an4.phone")}
    for folder, split, speaker in (
        ("an4_clstk", "train", "fash"),
        ("an4_clstk", "train", "msct"),
        ("an4test_clstk", "test", "fcaw"),
    ):
        for n in range(2):
            name = f"{folder}/{speaker}/an{n}-{speaker}-b.wav"
            members[f"an4/{name}"] = wav_bytes(800 + n, 16000, len(members))
            table += f"{name}\t{split}\t{speaker}\t{800 + n}\tA B C\n"
    return write_tar(path, {"an4/transcripts.tsv": table.encode(), **members})
