"""Where does a preparation find and leave things?

Invariant: manifests and features are in sibling folders, so the same relative path leads to a sound
from both.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lhotse import MonoCut

from snowmelt.prepare.manifests import portable_path
from snowmelt.prepare.workers import Executor, Workers

__all__ = ["BASE_URL", "Places"]

BASE_URL: Final = "https://www.openslr.org/resources"
"""OpenSLR, where LibriSpeech and MUSAN are published."""


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: everything that is made.
        downloads: everything that is fetched, or was put there by hand.
        base_url: where OpenSLR's resources are.
        workers: share the work.
    """

    data: Path
    downloads: Path
    base_url: str = BASE_URL
    workers: Executor = field(default_factory=Workers)

    @property
    def manifests(self) -> Path:
        """Recordings and transcripts."""
        return self.data / "manifests"

    @property
    def fbank(self) -> Path:
        """Cuts and features."""
        return self.data / "fbank"

    def lang(self, vocab_size: int) -> Path:
        """A vocabulary and what is made of it."""
        return self.data / f"lang_bpe_{vocab_size}"

    def source(self, cut: MonoCut) -> str:
        """How manifests name the sound of a cut whose path leads from here to it."""
        return portable_path(Path(cut.recording.sources[0].source), self.fbank)
