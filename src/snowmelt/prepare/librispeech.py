"""What do LibriSpeech's folders hold? Manifests of its parts, and the cuts made of these.

Read: <part>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt, and beside it a sound file for each
line, FLAC, WAV or Opus.

Invariant: ids are the corpus's own utterance ids; the order is that of sorted folders and lines.
"""

import hashlib
import logging
import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from snowmelt.audio.read import info
from snowmelt.core.errors import DataError
from snowmelt.core.files import make_folder
from snowmelt.core.progress import progress_bar
from snowmelt.prepare.manifests import (
    ManifestWriter,
    portable_path,
    read_lines,
    read_manifest,
    write_manifest,
)
from snowmelt.prepare.workers import Executor

__all__ = [
    "SPEED_FACTORS",
    "chapter_fingerprint",
    "is_training_part",
    "part_cuts",
    "part_texts",
    "write_part_manifests",
    "write_shuffled",
]

_logger = logging.getLogger(__name__)

SPEED_FACTORS: Final = (0.9, 1.1)
"""Copies that training parts get, in this order."""

_SAMPLE_RATE: Final = 16000
# The first that is there is taken.
_SUFFIXES: Final = (".flac", ".wav", ".opus")
# More warnings than this are only counted.
_SHOWN_WARNINGS: Final = 10
_SHUFFLE_SEED: Final = 42
# A million cuts with features are a gigabyte of text: 64 heaps hold a few megabytes each.
_NUM_HEAPS: Final = 64


class _Utterance(NamedTuple):
    id: str
    path: Path
    num_samples: int
    text: str
    speaker: str


def is_training_part(part: str) -> bool:
    """Whether a part is learnt from: it then gets speed copies, and its texts a vocabulary."""
    return part.startswith("train")


def chapter_fingerprint(folder: Path) -> str | None:
    """Changes with the names of the files of a part; None: the folder is not there.

    Half a second for all of LibriSpeech: only the names are read.
    """
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for speaker in _folders(folder):
        for chapter in _folders(speaker):
            names = sorted(entry.name for entry in os.scandir(chapter))
            digest.update("\n".join([speaker.name, chapter.name, *names]).encode() + b"\n\n")
    return digest.hexdigest()


def write_part_manifests(
    folder: Path, recordings: Path, supervisions: Path, workers: Executor
) -> str:
    """Manifests of the recordings and of the transcripts of a part.

    Args:
        folder: the part, for example LibriSpeech/dev-clean.
        recordings: manifest to write.
        supervisions: manifest to write, in the same order.
        workers: read the sound files' headers.

    Returns:
        Number of utterances and hours, in words.

    Raises:
        UserError: no transcripts, or a line or sound file that cannot be used.
    """
    utterances: list[_Utterance] = []
    warnings: list[str] = []
    speakers = _folders(folder)
    with progress_bar(f"reading {folder.name}", total=len(speakers)) as progress:
        for found, doubtful in workers.map(_read_speaker, speakers):
            utterances += found
            warnings += doubtful
            progress.advance()
    for warning in warnings[:_SHOWN_WARNINGS]:
        _logger.warning("%s", warning)
    if len(warnings) > _SHOWN_WARNINGS:
        _logger.warning("%d more like these", len(warnings) - _SHOWN_WARNINGS)
    if not utterances:
        raise DataError(
            f"{folder} holds no utterances",
            "it should have folders <speaker>/<chapter> with a .trans.txt and sound files in them",
        )
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise DataError(f"{folder} has utterance {utterance.id} twice")
        seen.add(utterance.id)
    write_manifest(recordings, (_recording(u, recordings.parent).to_dict() for u in utterances))
    write_manifest(supervisions, (_supervision(u).to_dict() for u in utterances))
    hours = sum(u.num_samples for u in utterances) / _SAMPLE_RATE / 3600
    return f"{folder.name}: {len(utterances)} utterances, {hours:.3f} h"


def part_cuts(
    recordings: Path, supervisions: Path, factors: Sequence[float] = ()
) -> Iterator[MonoCut]:
    """The cuts of a part with paths that lead from here to their sound, then its speed copies.

    Args:
        recordings: manifest of the part.
        supervisions: the same, in the same order.
        factors: speeds of the copies, whose ids end in `_sp0.9` and the like.

    Raises:
        DataError: a manifest is damaged, or they do not belong together.
    """
    for factor in (1.0, *factors):
        pairs = zip(read_manifest(recordings), read_manifest(supervisions), strict=True)
        for recording_item, supervision_item in pairs:
            recording = Recording.from_dict(recording_item)
            supervision = SupervisionSegment.from_dict(supervision_item)
            if recording.id != supervision.recording_id:
                raise DataError(
                    f"{recordings} and {supervisions} are of different preparations",
                    "prepare them again: --stage 1 --force",
                )
            source = recording.sources[0]
            source.source = os.path.normpath(recordings.parent / source.source)
            cut = MonoCut(
                id=recording.id,
                start=0.0,
                duration=recording.duration,
                channel=0,
                supervisions=[supervision],
                recording=recording,
            )
            yield cut if factor == 1.0 else cut.perturb_speed(factor)


def part_texts(supervisions: Path) -> Iterator[str]:
    """The transcripts of a part, in order."""
    for item in read_manifest(supervisions):
        yield str(item.get("text", ""))


def write_shuffled(manifests: Iterable[Path], shuffled: Path) -> str:
    """The items of several manifests in random order, the same order every time.

    Lines are dealt to heaps in temporary files, and each heap is shuffled in memory.

    Returns:
        How many, in words.
    """
    rng = random.Random(f"{shuffled.name} {_SHUFFLE_SEED}")
    # Beside the manifest: there is room for it, which a system's temporary folder may not have.
    make_folder(shuffled.parent)
    with ExitStack() as files:
        heaps = [
            files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=shuffled.parent))
            for _ in range(_NUM_HEAPS)
        ]
        for manifest in manifests:
            for line in read_lines(manifest):
                heaps[int(rng.random() * _NUM_HEAPS)].write(line)

        count = 0
        with ManifestWriter(shuffled) as writer:
            for heap in heaps:
                heap.seek(0)
                lines = [line.rstrip("\n") for line in heap]
                for line in sorted(lines, key=lambda _: rng.random()):
                    writer.write_line(line)
                count += len(lines)
    return f"{shuffled.name}: {count} cuts"


def _read_speaker(folder: Path) -> tuple[list[_Utterance], list[str]]:
    """The utterances of a speaker, and what is odd about the folder."""
    utterances: list[_Utterance] = []
    warnings: list[str] = []
    for chapter in _folders(folder):
        sounds: dict[str, Path] = {}
        for suffix in reversed(_SUFFIXES):
            sounds |= {path.stem: path for path in sorted(chapter.glob(f"*{suffix}"))}
        for transcript in sorted(chapter.glob("*.trans.txt")):
            for number, utterance_id, text in _transcript_lines(transcript):
                path = sounds.pop(utterance_id, None)
                if path is None:
                    warnings.append(f"{transcript} line {number}: no sound file {utterance_id}.*")
                    continue
                num_samples, rate = info(path)
                if rate != _SAMPLE_RATE:
                    raise DataError(
                        f"{path} has {rate} Hz, LibriSpeech has {_SAMPLE_RATE}",
                        "convert it, for example: ffmpeg -i FILE -ar 16000 out.flac",
                    )
                speaker = utterance_id.partition("-")[0]
                utterances.append(_Utterance(utterance_id, path, num_samples, text, speaker))
        warnings += [f"{path} has no transcript" for path in sounds.values()]
    return utterances, warnings


def _transcript_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "download the corpus again") from None
    for number, line in enumerate(lines, start=1):
        utterance_id, _, text = line.strip().partition(" ")
        if not utterance_id:
            continue
        if not text.strip():
            raise DataError(
                f"{path} line {number} ({utterance_id}) has no words",
                "a line is an utterance id and its words; remove it, or download the corpus again",
            )
        yield number, utterance_id, text.strip()


def _recording(utterance: _Utterance, folder: Path) -> Recording:
    return Recording(
        id=utterance.id,
        sources=[
            AudioSource(type="file", channels=[0], source=portable_path(utterance.path, folder))
        ],
        sampling_rate=_SAMPLE_RATE,
        num_samples=utterance.num_samples,
        duration=utterance.num_samples / _SAMPLE_RATE,
    )


def _supervision(utterance: _Utterance) -> SupervisionSegment:
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=utterance.num_samples / _SAMPLE_RATE,
        channel=0,
        text=utterance.text,
        language="English",
        speaker=utterance.speaker,
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir())
