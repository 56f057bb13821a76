"""Tiny corpora in the layout of the published ones, and what a prepared folder holds."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

_SYLLABLES = ("KA", "LO", "MI", "NE", "TU", "RA", "SO")


def write_sound(path: Path, num_samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    soundfile.write(path, rng.uniform(-0.5, 0.5, num_samples), 16000, subtype="PCM_16")


def librispeech(
    downloads: Path,
    parts: Sequence[str] = ("train-clean-5", "dev-clean-2"),
    *,
    speakers: int = 2,
    utterances: int = 3,
) -> None:
    """Parts with two chapters a speaker, utterances of 0.3 to 0.7 s."""
    for number, part in enumerate(parts):
        rng = random.Random(part)
        for speaker in range(speakers):
            for chapter in range(2):
                name = f"{10 * number + speaker + 100}-{chapter}"
                folder = downloads / "LibriSpeech" / part / name.replace("-", "/")
                lines = []
                for n in range(utterances):
                    words = (
                        "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3))) for _ in range(4)
                    )
                    lines.append(f"{name}-{n:04d} {' '.join(words)}")
                    write_sound(folder / f"{name}-{n:04d}.flac", rng.randint(4800, 11200))
                (folder / f"{name}.trans.txt").write_text("\n".join(lines) + "\n")
    (downloads / "LibriSpeech" / "SPEAKERS.TXT").write_text("100 | F\n")


def musan(downloads: Path) -> None:
    write_sound(downloads / "musan/noise/free-sound/noise-free-sound-0000.wav", 16000)
    write_sound(downloads / "musan/music/jamendo/music-jamendo-0000.wav", 16000 * 26)
    (downloads / "musan/music/jamendo/ANNOTATIONS").write_text("music-jamendo-0000 pop N x\n")


def gigaspeech(downloads: Path) -> None:
    """Twenty-one recordings of subset XS, two of DEV and one of TEST, of 3 s each."""
    audios = []
    rows = [(n, ["{XL}", "{XS}"]) for n in range(21)] + [(21, ["{DEV}"]), (22, ["{DEV}"])]
    for n, subsets in [*rows, (23, ["{TEST}"])]:
        aid = f"POD{1000000000 + n}"
        path = f"audio/podcast/P0000/{aid}.opus"
        file = downloads / "GigaSpeech" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(n).uniform(-0.5, 0.5, 48000)
        soundfile.write(file, samples, 16000, format="OGG", subtype="OPUS")
        texts = ("AS THEY'RE LEAVING <COMMA> SHE  SAID <PERIOD>", "<MUSIC>", "WHY <QUESTIONMARK>")
        segments: list[dict[str, Any]] = [
            {
                "sid": f"{aid}_S{k:07d}",
                "speaker": "N/A",
                "begin_time": 0.25 + 0.75 * k,
                "end_time": 0.75 + 0.75 * k,
                "text_tn": text,
                "subsets": subsets,
            }
            for k, text in enumerate(texts)
        ]
        audios.append(
            {
                "title": "x [1], {2}",
                "url": "",
                "path": path,
                "aid": aid,
                "source": "podcast",
                "codec": "opus",
                "channels": 1,
                "md5": "",
                "format": "opus",
                "sample_rate": 16000,
                "duration": 3.0,
                "subsets": subsets,
                "speaker": "N/A",
                "category": "N/A",
                "segments": segments,
            }
        )
    content = {"dataset": "GigaSpeech", "language": "EN", "version": "v1.0.0", "audios": audios}
    (downloads / "GigaSpeech/GigaSpeech.json").write_text(json.dumps(content, indent=1))


def tar_of(folder: Path, member: str) -> bytes:
    """A .tar.gz of `folder / member` and of the text files beside it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder / member, member)
        for path in sorted((folder / member).parent.glob("*.TXT")):
            tar.add(path, str(path.relative_to(folder)))
    return content.getvalue()


def items(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def content(folder: Path) -> dict[str, str]:
    """Checksums of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
