"""Which corpora are there, and what can be asked of each?

A small corpus lives in a folder that its `prepare` fills from an archive; a large one in a folder
of lhotse manifests, which may be shared with others. `cuts` then gives lhotse cuts.

Invariant: every corpus answers the same calls; nobody above asks which corpus it is.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from lhotse import CutSet

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.an4 import An4Corpus
from snowmelt.data.corpora.digits import DigitsCorpus
from snowmelt.data.corpora.edges import SUFFIX as _EDGES
from snowmelt.data.corpora.edges import EdgeCorpus
from snowmelt.data.corpora.gigaspeech import gigaspeech
from snowmelt.data.corpora.librispeech import librispeech
from snowmelt.data.corpora.manifests import ManifestCorpus, PartSelection, find_manifest
from snowmelt.presets.data import DataConfig

__all__ = [
    "ArchiveCorpus",
    "Corpus",
    "PartSelection",
    "corpus_names",
    "get_corpus",
    "manifest_corpus_names",
    "open_corpus",
    "selection_of",
]


class Corpus(Protocol):
    """Recorded and transcribed speech, split into train, dev and test."""

    @property
    def name(self) -> str:
        """What `open_corpus` calls it."""

    @property
    def varies_with_epoch(self) -> bool:
        """Whether `cuts` composes new training utterances for each epoch."""

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets, which `cuts` knows too; "test" is all of them together."""

    @property
    def known_defects(self) -> frozenset[str]:
        """Defects (`snowmelt.data.audit.DEFECTS`) that its makers' own splits have."""

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """The utterances of a split: 16 kHz, mono, in memory (all but the sound itself).

        Args:
            split: train, dev, test, or one of the test sets.
            epoch: number of the training epoch: a corpus may compose new utterances for each.
                Dev and test never depend on it.

        Raises:
            DataError: the corpus is not prepared, or has no such split.
        """


class ArchiveCorpus(Corpus, Protocol):
    """A corpus that comes as one archive."""

    def prepare(self, archive: Path | None = None) -> None:
        """Fill the corpus's folder; does nothing when it already holds this archive.

        Args:
            archive: the corpus as it is passed around; None takes `<name>.tar` beside the folder,
                unless the folder is prepared already.

        Raises:
            DataError: the archive is missing or damaged, or the folder holds something else.
        """


# What makes a corpus of its folder and the seed of the utterances it composes.
_ARCHIVE_CORPORA: Final[dict[str, Callable[[Path, int], ArchiveCorpus]]] = {
    "an4": lambda folder, seed: An4Corpus(folder),
    "digits": lambda folder, seed: DigitsCorpus(folder, seed=seed),
}

_MANIFEST_CORPORA: Final[dict[str, Callable[[Path, PartSelection], Corpus]]] = {
    "librispeech": librispeech,
    "gigaspeech": gigaspeech,
}


def corpus_names() -> tuple[str, ...]:
    """Names of the corpora that come as an archive: those that `get_corpus` knows."""
    return tuple(_ARCHIVE_CORPORA)


def manifest_corpus_names() -> tuple[str, ...]:
    """Names of the corpora that are read from manifests."""
    return tuple(_MANIFEST_CORPORA)


def get_corpus(name: str, folder: Path, *, seed: int = 42) -> ArchiveCorpus:
    """The corpus called `name` in `folder` (for example data/digits), prepared or not.

    Args:
        name: one of `corpus_names()`.
        folder: where it is, or will be, prepared.
        seed: seed of training utterances that are composed anew for each epoch.

    Raises:
        DataError: there is no such corpus.
    """
    if name not in _ARCHIVE_CORPORA:
        raise _unknown(name, _ARCHIVE_CORPORA)
    return _ARCHIVE_CORPORA[name](folder, seed)


def open_corpus(
    name: str,
    data_dir: Path,
    manifest_dir: Path,
    *,
    seed: int = 42,
    selection: PartSelection | None = None,
) -> Corpus:
    """Any corpus, to be read.

    Args:
        name: one of `corpus_names()` and `manifest_corpus_names()`, or an own corpus; with "-edges"
            behind it, its test sets cut right at the first and last sound.
        data_dir: a corpus that comes as an archive is in the folder of its name below; so is an own
            one.
        manifest_dir: holds the manifests of the others.
        seed: seed of training utterances that are composed anew for each epoch.
        selection: parts of a corpus in manifests; None: the usual ones.

    Raises:
        DataError: there is no such corpus.
        ConfigError: `selection` contradicts itself.
    """
    if name in _MANIFEST_CORPORA:
        return _MANIFEST_CORPORA[name](manifest_dir, selection or PartSelection())
    if name not in _ARCHIVE_CORPORA:
        own = _own_corpus(name, data_dir / name)
        if own is None and name.endswith(_EDGES):
            source = open_corpus(name.removesuffix(_EDGES), data_dir, manifest_dir)
            return EdgeCorpus(source.name, source.test_sets, source.cuts)
        if own is None:
            raise _unknown(name, [*_ARCHIVE_CORPORA, *_MANIFEST_CORPORA])
        return own
    return get_corpus(name, data_dir / name, seed=seed)


def selection_of(data: DataConfig, corpus: str) -> PartSelection:
    """Which parts of a corpus the settings ask for; names of parts are the main corpus's."""
    if corpus != data.corpus:
        return PartSelection(full_libri=data.full_libri)
    return PartSelection(
        full_libri=data.full_libri,
        mini_libri=data.mini_libri,
        train_parts=data.train_parts,
        dev_parts=data.dev_parts,
        test_parts=data.test_parts,
    )


def _own_corpus(name: str, folder: Path) -> Corpus | None:
    """A corpus that `snowmelt prepare own` has left in a folder; None if there is none.

    A test set is not asked of everybody.
    """
    if not name or "/" in name or find_manifest(folder, f"{name}_cuts_train") is None:
        return None
    test = ["test"] if find_manifest(folder, f"{name}_cuts_test") is not None else []
    return ManifestCorpus(name, folder, train=["train"], dev=["dev"], test=test)


def _unknown(name: str, known: Iterable[str]) -> DataError:
    return DataError(
        f"there is no corpus {name!r}",
        f"choose {' or '.join(known)}; or make it with snowmelt prepare own --name {name}",
    )
