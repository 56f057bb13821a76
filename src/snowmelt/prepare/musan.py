"""What does MUSAN's folder hold? Manifests of its music, speech and noise, and windows cut of them.

Read: musan/{music,speech,noise}/<source>/ with sound files. A kind may be missing.

Invariant: recordings are called like their files, windows `<recording>-<n>`; the order is sorted.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lhotse import AudioSource, MonoCut, Recording

from snowmelt.audio.read import info
from snowmelt.core.errors import DataError
from snowmelt.core.progress import progress_bar
from snowmelt.data.noise import NOISE_SUFFIXES, noise_windows
from snowmelt.prepare.manifests import portable_path, read_manifest, write_manifest
from snowmelt.prepare.workers import Executor

__all__ = ["KINDS", "noise_cuts", "noise_fingerprint", "write_noise_manifests"]

KINDS: Final = ("music", "speech", "noise")
"""Folders of MUSAN, in the order in which they are read."""


def noise_fingerprint(folder: Path) -> str | None:
    """Changes with the names of the files; None: the folder is not there."""
    if not folder.is_dir():
        return None
    names = [str(path.relative_to(folder)) for kind in KINDS for path in _sounds(folder / kind)]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def write_noise_manifests(folder: Path, manifests: Sequence[Path], workers: Executor) -> str:
    """Manifests of the recordings of each kind, in the order of `KINDS`; empty where none are.

    Returns:
        Numbers of recordings and hours, in words.

    Raises:
        UserError: there are no sound files, or one cannot be read.
    """
    counts = []
    seconds = 0.0
    seen: dict[str, Path] = {}
    for kind, manifest in zip(KINDS, manifests, strict=True):
        paths = _sounds(folder / kind)
        recordings = []
        with progress_bar(f"reading {kind}", total=len(paths)) as progress:
            for path, (num_samples, rate) in zip(paths, workers.map(info, paths), strict=True):
                progress.advance()
                if path.stem in seen:
                    raise DataError(
                        f"{path} and {seen[path.stem]} have the same name", "rename one of them"
                    )
                seen[path.stem] = path
                recording = Recording(
                    id=path.stem,
                    sources=[
                        AudioSource(
                            type="file",
                            channels=[0],
                            source=portable_path(path, manifest.parent),
                        )
                    ],
                    sampling_rate=rate,
                    num_samples=num_samples,
                    duration=num_samples / rate,
                )
                seconds += recording.duration
                recordings.append(recording.to_dict())
        write_manifest(manifest, recordings)
        counts.append(f"{len(recordings)} of {kind}")
    if not seen:
        raise DataError(
            f"{folder} holds no sound files", f"it should have folders {', '.join(KINDS)}"
        )
    return f"MUSAN: {', '.join(counts)}, {seconds / 3600:.3f} h"


def noise_cuts(manifests: Sequence[Path]) -> Iterator[MonoCut]:
    """The windows of all recordings, with paths that lead from here to their sound."""
    for manifest in manifests:
        for item in read_manifest(manifest):
            recording = Recording.from_dict(item)
            source = recording.sources[0]
            source.source = os.path.normpath(manifest.parent / source.source)
            yield from noise_windows(recording)


def _sounds(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in NOISE_SUFFIXES)
