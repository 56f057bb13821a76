"""Which corpora are there, and what can be asked of each?

A corpus lives in a folder that `prepare` fills from an archive; `cuts` then gives lhotse cuts.

Invariant: every corpus answers the same two calls; nobody above asks which corpus it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

from lhotse import CutSet

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.an4 import An4Corpus
from snowmelt.data.corpora.digits import DigitsCorpus

__all__ = ["Corpus", "corpus_names", "get_corpus"]


class Corpus(Protocol):
    """Recorded and transcribed speech, split into train, dev and test."""

    @property
    def name(self) -> str:
        """What `get_corpus` calls it."""

    def prepare(self, archive: Path | None = None) -> None:
        """Fill the corpus's folder; does nothing when it already holds this archive.

        Args:
            archive: the corpus as it is passed around; None takes `<name>.tar` beside the folder,
                unless the folder is prepared already.

        Raises:
            DataError: the archive is missing or damaged, or the folder holds something else.
        """

    def cuts(self, split: Literal["train", "dev", "test"], epoch: int = 0) -> CutSet:
        """The utterances of a split: 16 kHz, mono, in memory (all but the sound itself).

        Args:
            split: which part.
            epoch: number of the training epoch: a corpus may compose new utterances for each.
                Dev and test never depend on it.

        Raises:
            DataError: the corpus is not prepared.
        """


# What makes a corpus of its folder and the seed of the utterances it composes.
_CORPORA: Final[dict[str, Callable[[Path, int], Corpus]]] = {
    "an4": lambda folder, seed: An4Corpus(folder),
    "digits": lambda folder, seed: DigitsCorpus(folder, seed=seed),
}


def corpus_names() -> tuple[str, ...]:
    """Names that `get_corpus` knows."""
    return tuple(_CORPORA)


def get_corpus(name: str, folder: Path, *, seed: int = 42) -> Corpus:
    """The corpus called `name` in `folder` (for example data/digits), prepared or not.

    Args:
        name: one of `corpus_names()`.
        folder: where it is, or will be, prepared.
        seed: seed of training utterances that are composed anew for each epoch.

    Raises:
        DataError: there is no such corpus.
    """
    if name not in _CORPORA:
        raise DataError(f"there is no corpus {name!r}", f"choose {' or '.join(_CORPORA)}")
    return _CORPORA[name](folder, seed)
