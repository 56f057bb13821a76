"""How do anybody's own recordings become a corpus? A list and sound files in, cuts out.

    <data>/<name>/recordings.jsonl.gz          every sound file, with its length
    <data>/<name>/sound/                       copies of those that are not 16 kHz mono
    <data>/<name>/<name>_cuts_{train,dev,test}.jsonl.gz

Invariant: the user's files are never changed; no speaker is in two splits, where speakers are
known and the list itself does not put them there.
"""

import hashlib
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from snowmelt.audio.read import info, read_audio
from snowmelt.audio.resample import resample
from snowmelt.core.errors import DataError, UserError
from snowmelt.core.files import write_bytes
from snowmelt.core.progress import progress_bar
from snowmelt.prepare.manifests import portable_path, read_manifest, write_manifest
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.transcripts import Transcribed
from snowmelt.prepare.workers import Executor
from snowmelt.text.normalise import LetterCase, normalise

__all__ = ["SPLITS", "OwnCorpus", "own_steps", "split_speakers"]

_logger = logging.getLogger(__name__)

SPLITS: Final = ("train", "dev", "test")

_SAMPLE_RATE: Final = 16_000

# Shorter than a feature frame: times in lists are rounded.
_ROUNDING_S: Final = 0.01


@dataclass(frozen=True)
class OwnCorpus:
    """What is prepared, and how.

    Attributes:
        name: the corpus's name, also its folder's.
        utterances: as their list names them.
        audio_dir: sound files that are named relatively are looked for here.
        letter_case: see `text.normalise`.
        dev_share, test_share: of the speech without a split of its own, in hours.
        skip_bad: leave out utterances that cannot be used, with a warning, instead of refusing.
    """

    name: str
    utterances: Sequence[Transcribed]
    audio_dir: Path
    letter_case: LetterCase = "none"
    dev_share: float = 0.05
    test_share: float = 0.05
    skip_bad: bool = False


class _Sound(NamedTuple):
    """A sound file as it will be read: its own, or a copy."""

    name: str  # as its list writes it
    path: str  # from the corpus's folder, or absolute
    num_samples: int
    problem: str = ""


def own_steps(corpus: OwnCorpus, data_dir: Path, workers: Executor) -> list[Step]:
    """The preparation: stage 1 listens to the sound files, stage 2 writes the cuts."""
    folder = data_dir / corpus.name
    recordings = folder / "recordings.jsonl.gz"
    manifests = {split: folder / f"{corpus.name}_cuts_{split}.jsonl.gz" for split in SPLITS}
    sounds = list(dict.fromkeys(utterance.audio for utterance in corpus.utterances))
    return [
        Step(
            stage=1,
            name="sound",
            title="sound files",
            outputs=(recordings,),
            make=partial(_write_recordings, corpus, sounds, folder, recordings, workers),
            settings={"skip_bad": corpus.skip_bad},
            inputs=partial(_fingerprint, corpus.audio_dir, sounds),
            scratch=(folder / "sound",),
        ),
        Step(
            stage=2,
            name="cuts",
            title="cuts",
            outputs=tuple(manifests.values()),
            make=partial(_write_cuts, corpus, recordings, manifests),
            settings={
                "list": hashlib.sha256(repr(list(corpus.utterances)).encode()).hexdigest(),
                "letter_case": corpus.letter_case,
                "dev_share": corpus.dev_share,
                "test_share": corpus.test_share,
                "skip_bad": corpus.skip_bad,
            },
            needs=("sound",),
        ),
    ]


def _fingerprint(audio_dir: Path, sounds: Iterable[str]) -> str:
    """Changes with the sizes of the files."""
    digest = hashlib.sha256()
    for name in sounds:
        path = audio_dir / name
        size = path.stat().st_size if path.is_file() else -1
        digest.update(f"{name} {size}\n".encode())
    return digest.hexdigest()


def _write_recordings(
    corpus: OwnCorpus, names: Sequence[str], folder: Path, manifest: Path, workers: Executor
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    listen = partial(_listen, corpus.audio_dir, folder)
    sounds = []
    with progress_bar("listening", total=len(names)) as progress:
        for sound in workers.map(listen, names):
            sounds.append(sound)
            progress.advance()
    bad = [sound.problem for sound in sounds if sound.problem]
    _refuse_or_warn(bad, len(sounds), "sound files", corpus.skip_bad)
    write_manifest(manifest, [sound._asdict() for sound in sounds if not sound.problem])
    copies = sum(1 for sound in sounds if sound.path.startswith("sound" + os.sep))
    hours = sum(sound.num_samples for sound in sounds) / _SAMPLE_RATE / 3600
    return f"{len(sounds) - len(bad)} sound files, {hours:.3f} h, {copies} copied as 16 kHz mono"


def _listen(audio_dir: Path, folder: Path, name: str) -> _Sound:
    """Look at a sound file, and copy it if it is not as training reads it. Runs in a worker."""
    path = audio_dir / name
    try:
        num_samples, rate = info(path)
        if rate == _SAMPLE_RATE and soundfile.info(str(path)).channels == 1:
            return _Sound(name, portable_path(path, folder), num_samples)
        samples, rate = read_audio(path)
    except UserError as error:
        return _Sound(name, "", 0, error.message)
    samples = resample(samples, rate, _SAMPLE_RATE)
    packed = io.BytesIO()
    soundfile.write(packed, samples, _SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    # The digest keeps files apart whose names differ only in their folders or endings.
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    copy = Path("sound", f"{Path(name).stem}-{digest}.flac")
    write_bytes(folder / copy, packed.getvalue())
    return _Sound(name, str(copy), len(samples))


def _write_cuts(corpus: OwnCorpus, recordings: Path, manifests: Mapping[str, Path]) -> str:
    sounds = {item["name"]: _Sound(**item) for item in read_manifest(recordings)}
    cuts: list[tuple[Transcribed, MonoCut]] = []
    bad: list[str] = []
    ids: Counter[str] = Counter()
    for utterance in corpus.utterances:
        sound = sounds.get(utterance.audio)
        if sound is None:
            continue  # said in the stage before
        text = normalise(utterance.text, corpus.letter_case)
        end_s = sound.num_samples / _SAMPLE_RATE
        if not text:
            bad.append(f"{utterance.where} has an empty transcript")
        elif (utterance.end_s or end_s) > end_s + _ROUNDING_S or utterance.start_s >= end_s:
            bad.append(f"{utterance.where} ends behind its sound file, which has {end_s:.2f} s")
        else:
            cuts.append((utterance, _cut(utterance, sound, text, ids)))
    _refuse_or_warn(bad, len(corpus.utterances), "utterances", corpus.skip_bad)
    splits = split_speakers(
        [
            (utterance.split, utterance.speaker or cut.recording.id, cut.duration)
            for utterance, cut in cuts
        ],
        dev_share=corpus.dev_share,
        test_share=corpus.test_share,
    )
    told = []
    for split, manifest in manifests.items():
        own = [cut for (_, cut), its in zip(cuts, splits, strict=True) if its == split]
        write_manifest(manifest, [cut.to_dict() for cut in own])
        told.append(f"{split} {len(own)} ({sum(cut.duration for cut in own) / 3600:.3f} h)")
    return f"cuts: {', '.join(told)}"


def _cut(utterance: Transcribed, sound: _Sound, text: str, ids: Counter[str]) -> MonoCut:
    name = utterance.utterance_id or Path(utterance.audio).stem
    ids[name] += 1
    if ids[name] > 1:
        name = f"{name}-{ids[name]}"
    duration = sound.num_samples / _SAMPLE_RATE
    recording = Recording(
        id=Path(sound.path).stem,
        sources=[AudioSource(type="file", channels=[0], source=sound.path)],
        sampling_rate=_SAMPLE_RATE,
        num_samples=sound.num_samples,
        duration=duration,
    )
    start = utterance.start_s
    length = min(duration, utterance.end_s or duration) - start
    supervision = SupervisionSegment(
        id=name,
        recording_id=recording.id,
        start=0.0,
        duration=length,
        text=text,
        speaker=utterance.speaker or None,
    )
    return MonoCut(name, start, length, 0, supervisions=[supervision], recording=recording)


def split_speakers(
    utterances: Sequence[tuple[str, str, float]], *, dev_share: float, test_share: float
) -> list[str]:
    """Which split does each utterance belong to?

    Utterances that have a split keep it. Of the others, whole speakers go to dev and test until
    these have their shares of the speech; which speakers, depends on their names alone.

    Args:
        utterances: (split or "", speaker, seconds).
        dev_share, test_share: of the seconds without a split, from 0 to below 1 together.

    Raises:
        DataError: there are too few speakers for the splits.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for split, speaker, length in utterances:
        if not split:
            seconds[speaker] += length
    total = sum(seconds.values())
    wanted = {
        "dev": 0.0 if any(split == "dev" for split, _, _ in utterances) else dev_share * total,
        "test": 0.0 if any(split == "test" for split, _, _ in utterances) else test_share * total,
    }
    # Sorted by a digest: not the alphabet's first, and the same on every machine.
    rest = sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).digest())
    needed = 1 + sum(1 for share in wanted.values() if share > 0)
    if total and len(rest) < needed:
        raise DataError(
            f"{len(rest)} speakers or recordings are too few for {needed} splits",
            "name splits in the list, or set --dev-share and --test-share to 0",
        )
    split_of = {}
    for split, share in wanted.items():
        taken = 0.0
        # A share is no reason to leave training without a speaker.
        while rest and taken < share and len(rest) > 1:
            speaker = rest.pop(0)
            split_of[speaker] = split
            taken += seconds[speaker]
    return [split or split_of.get(speaker, "train") for split, speaker, _ in utterances]


def _refuse_or_warn(bad: Sequence[str], total: int, what: str, skip_bad: bool) -> None:
    if not bad:
        return
    if not skip_bad or len(bad) == total:
        raise DataError(
            f"{len(bad)} of {total} {what} cannot be used, the first: {bad[0]}",
            "repair them, or leave them out with --skip-bad",
        )
    for line in bad:
        _logger.warning("left out: %s", line)
