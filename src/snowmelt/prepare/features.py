"""How do the sounds of a manifest of cuts become a manifest of cuts with stored features?

Cuts are taken in groups of a fixed size; each group's features are one file, computed by one
worker. A group is what a killed run loses at most.

Invariant: files and manifest are functions of the cuts, not of the number of workers nor of how
often a run was interrupted. Every line is checked before it is written.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lhotse import Features, MonoCut

from snowmelt.audio.fbank import FbankConfig
from snowmelt.core.errors import DataError
from snowmelt.core.files import make_folder, remove_leftovers
from snowmelt.core.progress import progress_bar
from snowmelt.data.cuts import AudioCache
from snowmelt.data.feature_rows import STORAGE_TYPE, rows_file_size, rows_key, write_rows
from snowmelt.data.features import FeatureReader
from snowmelt.prepare.manifests import write_manifest
from snowmelt.prepare.workers import Executor

__all__ = ["CutCounts", "write_cuts", "write_cuts_with_features"]

# 250 utterances of LibriSpeech are an hour: 58 MB, and half a minute of one core.
_GROUP: Final = 250
_TOLERANCE_S: Final = 0.002
_HOUR_S: Final = 3600.0


@dataclass
class CutCounts:
    """What a manifest of cuts holds."""

    cuts: int = 0
    seconds: float = 0.0
    frames: int = 0

    def add(self, cut: MonoCut, num_frames: int) -> None:
        """Count one more."""
        self.cuts += 1
        self.seconds += cut.duration
        self.frames += num_frames

    @property
    def hours(self) -> float:
        """Length of all cuts."""
        return self.seconds / _HOUR_S


def write_cuts(
    cuts: Iterable[MonoCut], manifest: Path, *, source: Callable[[MonoCut], str]
) -> CutCounts:
    """A manifest of cuts whose features are computed when they are needed.

    Args:
        cuts: with the paths that lead to their sound.
        manifest: the file to write.
        source: how the manifest names the sound of a cut.

    Raises:
        DataError: a cut is not as it must be.
    """
    counts = CutCounts()
    config = FbankConfig()

    def lines() -> Iterator[dict[str, Any]]:
        for cut in cuts:
            num_frames = _num_frames(cut, config)
            counts.add(cut, num_frames)
            cut.custom = {**(cut.custom or {}), "num_frames": num_frames}
            yield _line(cut, source(cut))

    write_manifest(manifest, lines())
    return counts


def write_cuts_with_features(
    cuts: Callable[[], Iterable[MonoCut]],
    manifest: Path,
    folder: Path,
    root: Path,
    *,
    source: Callable[[MonoCut], str],
    title: str,
    workers: Executor,
) -> CutCounts:
    """A manifest of cuts and, in files beside it, their features.

    Args:
        cuts: gives the cuts, with the paths that lead to their sound; called twice.
        manifest: the file to write.
        folder: where the features go, below `root`; may hold some of them already.
        root: the folder from which the paths in the manifest count.
        source: how the manifest names the sound of a cut.
        title: says what is done, for the progress bar.
        workers: compute the features.

    Raises:
        UserError: a cut is not as it must be, its sound cannot be read, or a worker was killed.
    """
    config = FbankConfig()
    make_folder(folder)
    remove_leftovers(folder, "*.npy")
    counts = CutCounts()

    def jobs() -> Iterator[tuple[Path, list[dict[str, Any]], int]]:
        for path, group in _groups(cuts(), folder):
            frames = [_num_frames(cut, config) for cut in group]
            for cut, num_frames in zip(group, frames, strict=True):
                counts.add(cut, num_frames)
            size = rows_file_size(sum(frames), config.num_mel_bins)
            is_done = path.is_file() and path.stat().st_size == size
            yield path, [] if is_done else [cut.to_dict() for cut in group], sum(frames)

    with progress_bar(title) as progress:
        for _ in workers.map(_compute, jobs()):
            progress.advance(_GROUP, f"{counts.hours:.1f} h")

    def lines() -> Iterator[dict[str, Any]]:
        for path, group in _groups(cuts(), folder):
            start = 0
            for cut in group:
                num_frames = _num_frames(cut, config)
                name = path.relative_to(root).as_posix()
                cut.features = _features(cut, name, start, num_frames, config)
                start += num_frames
                yield _line(cut, source(cut))

    write_manifest(manifest, lines())
    return counts


def _groups(cuts: Iterable[MonoCut], folder: Path) -> Iterator[tuple[Path, list[MonoCut]]]:
    iterator = iter(cuts)
    number = 0
    while group := list(islice(iterator, _GROUP)):
        yield folder / f"feats-{number}.npy", group
        number += 1


def _compute(job: tuple[Path, list[dict[str, Any]], int]) -> None:
    """The features of a group; nothing to do where the group is empty."""
    path, items, num_rows = job
    if not items:
        return
    reader = FeatureReader(cache=AudioCache(0))
    features = (reader.read(MonoCut.from_dict(item)) for item in items)
    write_rows(path, features, num_rows, reader.config.num_mel_bins)


def _features(
    cut: MonoCut, path: str, start: int, num_frames: int, config: FbankConfig
) -> Features:
    return Features(
        type="fbank",
        num_frames=num_frames,
        num_features=config.num_mel_bins,
        frame_shift=config.frame_shift / config.sample_rate,
        sampling_rate=config.sample_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=STORAGE_TYPE,
        storage_path=path,
        storage_key=rows_key(start, num_frames),
        recording_id=cut.recording_id,
        channels=cut.channel,
    )


def _num_frames(cut: MonoCut, config: FbankConfig) -> int:
    if cut.sampling_rate != config.sample_rate:
        raise DataError(
            f"cut {cut.id} has {cut.sampling_rate} Hz, features are of {config.sample_rate} Hz",
            "convert its sound, for example: ffmpeg -i FILE -ar 16000 out.wav",
        )
    return config.num_frames(cut.num_samples)


def _line(cut: MonoCut, source: str) -> dict[str, Any]:
    """A cut as its manifest holds it."""
    for supervision in cut.supervisions:
        is_inside = (
            supervision.start >= -_TOLERANCE_S
            and supervision.end <= cut.duration + _TOLERANCE_S
            and math.isfinite(supervision.duration)
        )
        if not is_inside:
            raise DataError(
                f"the transcript of cut {cut.id} is from {supervision.start:g} s to "
                f"{supervision.end:g} s, the cut has {cut.duration:g} s"
            )
    if len(cut.supervisions) > 1:
        raise DataError(f"cut {cut.id} has {len(cut.supervisions)} transcripts, not one")
    line: dict[str, Any] = cut.to_dict()
    line["recording"]["sources"][0]["source"] = source
    return line
