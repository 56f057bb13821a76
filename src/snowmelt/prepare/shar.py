"""How does a corpus become shards: few large files that are read from the beginning to the end?

    <data>/<name>/<split>/{cuts,recording}.<number>.{jsonl.gz,tar}     lhotse's Shar format
    <data>/<name>/<split>/{cuts,features}.<number>.{jsonl.gz,tar}
    <data>/<name>/<name>_cuts_<split>.jsonl.gz                         every utterance's place

Sound is written utterance by utterance as FLAC with 16 bits, features in half precision.

Invariant: a shard is a function of its utterances, so a killed run goes on where it stood; the
folders can be read by lhotse alone (`CutSet.from_shar`), the manifest makes a corpus of them.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import soundfile
from lhotse import AudioSource, Features, MonoCut, Recording
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path
from snowmelt.core.progress import progress_bar
from snowmelt.data.cuts import SPEED_KEY, AudioCache, cut_text, is_speed_copy, load_samples
from snowmelt.data.features import FeatureReader
from snowmelt.data.shards import SOUND_KEY, STORAGE_TYPE, member_key
from snowmelt.prepare.manifests import read_manifest, write_manifest
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.workers import Executor

__all__ = ["Content", "SharCorpus", "shar_steps"]

Content = Literal["sound", "features"]

_FIELD: Final[dict[Content, str]] = {"sound": "recording", "features": "features"}
_SHAR: Final = "shar"  # lhotse's word for "in the tar file beside this one"


@dataclass(frozen=True)
class SharCorpus:
    """What is written.

    Attributes:
        name: of the new corpus.
        splits: name -> its cuts.
        content: sound, or features (stored ones as they are, others computed).
        shard_size: utterances in a shard.
    """

    name: str
    splits: Mapping[str, Sequence[Cut]]
    content: Content = "sound"
    shard_size: int = 500


class _Job(NamedTuple):
    """A shard: its files and its utterances; none where the files are there."""

    tar: Path
    cuts: Path
    content: Content
    items: list[dict[str, Any]]


def shar_steps(corpus: SharCorpus, data_dir: Path, workers: Executor) -> list[Step]:
    """The preparation: one step a split, all of stage 1."""
    folder = data_dir / corpus.name
    return [
        Step(
            stage=1,
            name=f"shards-{split}",
            title=f"shards of {split}",
            outputs=(folder / f"{corpus.name}_cuts_{split}.jsonl.gz",),
            make=partial(_write_split, corpus, split, folder, workers),
            settings={
                "content": corpus.content,
                "shard_size": corpus.shard_size,
                "cuts": _digest(cuts),
            },
            scratch=(folder / split,),
        )
        for split, cuts in corpus.splits.items()
    ]


def _digest(cuts: Sequence[Cut]) -> str:
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(json.dumps(cut.to_dict(), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _write_split(corpus: SharCorpus, split: str, folder: Path, workers: Executor) -> str:
    cuts = corpus.splits[split]
    shards = [
        cuts[start : start + corpus.shard_size] for start in range(0, len(cuts), corpus.shard_size)
    ]
    field = _FIELD[corpus.content]
    names = [
        (folder / split / f"{field}.{n:06d}.tar", folder / split / f"cuts.{n:06d}.jsonl.gz")
        for n in range(len(shards))
    ]

    def jobs() -> Iterator[_Job]:
        for (tar, manifest), shard in zip(names, shards, strict=True):
            is_done = tar.exists() and manifest.exists()
            items = [] if is_done else [cut.to_dict() for cut in shard]
            yield _Job(tar, manifest, corpus.content, items)

    with progress_bar(f"shards of {split}", total=len(shards)) as progress:
        for _ in workers.map(_write_shard, jobs()):
            progress.advance()

    def lines() -> Iterator[dict[str, Any]]:
        for tar, manifest in names:
            for line in read_manifest(manifest):
                yield _placed(line, f"{split}/{tar.name}", corpus.content)

    write_manifest(folder / f"{corpus.name}_cuts_{split}.jsonl.gz", lines())
    hours = sum(cut.duration for cut in cuts) / 3600
    return f"{split}: {len(cuts)} utterances, {hours:.3f} h, in {len(shards)} shards"


def _write_shard(job: _Job) -> None:
    """Write one shard, the tar file first. Runs in a worker."""
    if not job.items:
        return
    write = _write_sound if job.content == "sound" else _write_features
    lines = []
    with atomic_path(job.tar) as temporary, tarfile.open(temporary, "w") as tar:
        cache = AudioCache()
        for item in job.items:
            cut = deserialize_item(item)
            if len(cut.supervisions) != 1:
                raise DataError(f"cut {cut.id} has {len(cut.supervisions)} transcripts, not one")
            lines.append(write(cut, cache, partial(_add, tar)))
    write_manifest(job.cuts, lines)


def _write_sound(cut: Cut, cache: AudioCache, add: Callable[[str, bytes], int]) -> dict[str, Any]:
    samples = load_samples(cut, cache)
    packed = io.BytesIO()
    soundfile.write(packed, samples, cut.sampling_rate, format="FLAC", subtype="PCM_16")
    offset = add(f"{cut.id}.flac", packed.getvalue())
    recording = Recording(
        id=cut.id,
        sources=[AudioSource(type=_SHAR, channels=[0], source="")],
        sampling_rate=cut.sampling_rate,
        num_samples=len(samples),
        duration=len(samples) / cut.sampling_rate,
    )
    add(f"{cut.id}.json", _json(recording.to_dict()))
    new = _bare(cut)
    new.recording = recording
    new.custom[SOUND_KEY] = member_key(offset, packed.getvalue())
    return _as_line(new)


def _write_features(
    cut: Cut, cache: AudioCache, add: Callable[[str, bytes], int]
) -> dict[str, Any]:
    reader = FeatureReader(cache=cache, is_stored=cut.has_features)
    config = reader.config
    packed = io.BytesIO()
    rows = reader.read(cut)
    np.save(packed, rows.astype("<f2"))
    offset = add(f"{cut.id}.npy", packed.getvalue())
    features = Features(
        type="fbank",
        num_frames=len(rows),
        num_features=rows.shape[1],
        frame_shift=config.frame_shift / config.sample_rate,
        sampling_rate=config.sample_rate,
        start=0.0,
        duration=cut.duration,
        storage_type=_SHAR,
        storage_path="",
        storage_key="",
        recording_id=cut.id,
        channels=0,
    )
    add(f"{cut.id}.json", _json(features.to_dict()))
    new = _bare(cut)
    new.features = features
    new.custom[SOUND_KEY] = member_key(offset, packed.getvalue())
    return _as_line(new)


def _placed(line: dict[str, Any], path: str, content: Content) -> dict[str, Any]:
    """A line of a shard's cuts as the corpus's manifest has it."""
    if content == "sound":
        line["recording"]["sources"] = [{"type": "file", "channels": [0], "source": path}]
        return line
    key = line["custom"].pop(SOUND_KEY)
    line["features"] |= {"storage_type": STORAGE_TYPE, "storage_path": path, "storage_key": key}
    return line


def _bare(cut: Cut) -> MonoCut:
    """The cut without its sound: from 0 on, with the transcript of the whole."""
    (supervision,) = cut.supervisions
    words = supervision.alignment
    if words is not None:
        words = {
            kind: [item._replace(start=item.start - cut.start) for item in items]
            for kind, items in words.items()
        }
    whole = supervision.with_offset(0.0)
    whole.recording_id, whole.text, whole.alignment = cut.id, cut_text(cut), words
    whole.channel = 0
    custom = {SPEED_KEY: True} if is_speed_copy(cut) else {}
    return MonoCut(cut.id, 0.0, cut.duration, 0, supervisions=[whole], custom=custom)


def _as_line(cut: MonoCut) -> dict[str, Any]:
    line: dict[str, Any] = cut.to_dict()
    return line


def _json(item: dict[str, Any]) -> bytes:
    return (json.dumps(item, ensure_ascii=False) + "\n").encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member, without times and owners; returns where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
