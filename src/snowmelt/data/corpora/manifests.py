"""How are corpora read that a preparation has left as lhotse manifests, one for each part?

Invariant: a manifest is taken as it is: order, ids and texts of its cuts do not change; only the
paths in it count from the folder that holds it, where they lead nowhere from here.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from lhotse import CutSet
from lhotse.cut import Cut, MonoCut

from snowmelt.core.errors import DataError, UserError
from snowmelt.core.files import require_file
from snowmelt.data.stored_cuts import StoredCuts, store_path

__all__ = [
    "ManifestCorpus",
    "PartSelection",
    "find_manifest",
    "load_manifest",
    "manifest_of_part",
]

_logger = logging.getLogger(__name__)

# Three hundred thousand cuts, more or less: a gigabyte of objects in each process.
_MAX_IN_MEMORY_BYTES: Final = 50_000_000
# Cuts of a large manifest that are looked at together.
_PIECE: Final = 10_000

_SUFFIXES: Final = (".jsonl.gz", ".jsonl")


@dataclass(frozen=True)
class PartSelection:
    """Which parts of a corpus are train, dev and test; names given here replace the usual ones.

    Attributes:
        full_libri: all of the corpus, or its small part.
        mini_libri: the smallest part, of LibriSpeech only.
        train_parts: names of the parts to train on.
        dev_parts: names of the parts to validate on, together.
        test_parts: names of the test sets.
    """

    full_libri: bool = True
    mini_libri: bool = False
    train_parts: tuple[str, ...] = ()
    dev_parts: tuple[str, ...] = ()
    test_parts: tuple[str, ...] = ()


class ManifestCorpus:
    """A corpus in manifests; see `snowmelt.data.corpora.Corpus`.

    Args:
        name: the corpus; its manifests are called `<name>_cuts_<part>`.
        folder: where they are.
        train: names of the training parts, in order.
        dev: names of the parts to validate on, in order.
        test: names of the test sets, in order.
    """

    varies_with_epoch: Final = False
    known_defects: Final = frozenset[str]()

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        train: Sequence[str],
        dev: Sequence[str],
        test: Sequence[str],
    ) -> None:
        self.name = name
        self._folder = folder
        self._parts = {"train": train, "dev": dev, "test": test}
        # Kept, since reading a hundred thousand cuts takes half a minute.
        self._cuts: dict[str, CutSet] = {}

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets."""
        return tuple(self._parts["test"])

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """The cuts of all parts of a split, or of one test set; the same in every epoch."""
        if split not in self._cuts:
            parts = self._parts.get(split)
            if parts is None:
                if split not in self.test_sets:
                    known = [*self._parts, *self.test_sets]
                    raise DataError(
                        f"{self.name} has no split {split!r}", f"choose {', '.join(known)}"
                    )
                parts = [split]
            # All manifests are looked up before the first long one is read.
            found = [manifest_of_part(self._folder, self.name, part) for part in parts]
            paths = [path for manifests in found for path in manifests]
            self._cuts[split] = _load_all(paths, self._folder)
        return self._cuts[split]


def manifest_of_part(folder: Path, corpus: str, part: str) -> list[Path]:
    """The manifests that hold a part of a corpus, in order: one, or its numbered pieces.

    A part that was split into pieces lies in `<corpus>_<part>_split_<n>/`, in files called
    `<corpus>_cuts_<part>.<number>.jsonl.gz`. Manifests without features, called `<part>_raw`, are
    taken where there are no others.

    Raises:
        DataError: there is no such manifest.
    """
    if not part or "/" in part or part.startswith("."):
        raise DataError(f"{part!r} is no name of a part of {corpus}")
    for stem in (f"{corpus}_cuts_{part}", f"{corpus}_cuts_{part}_raw"):
        pieces = {
            int(number): path
            for path in folder.glob(f"{corpus}_{part}_split*/{stem}.*")
            if (number := path.name.removeprefix(f"{stem}.").partition(".")[0]).isdecimal()
            and path.name.endswith(_SUFFIXES)
        }
        if pieces:
            return [pieces[number] for number in sorted(pieces)]
        whole = find_manifest(folder, stem)
        if whole is not None:
            return [whole]
    raise DataError(
        f"{folder} holds no manifest of {part}: {corpus}_cuts_{part}.jsonl.gz is missing",
        f"prepare {corpus}, or name its folder with --manifest-dir and its parts with "
        "--train-parts, --dev-parts and --test-parts",
    )


def find_manifest(folder: Path, stem: str) -> Path | None:
    """The manifest called `stem` and .jsonl.gz or .jsonl; None if there is none."""
    paths = (folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def _load_all(paths: Sequence[Path], root: Path) -> CutSet:
    """Cuts of manifests, one after the other: in memory, or large ones in a store beside them."""
    if sum(path.stat().st_size for path in paths) > _MAX_IN_MEMORY_BYTES:
        store = store_path(paths)
        try:
            if not StoredCuts.is_there(store):
                _logger.info("Unpacking the manifests of %s into %s", root, store)
                StoredCuts.write(store, (cut for path in paths for cut in _stream(path, root)))
            return CutSet(StoredCuts(store))
        except UserError as error:
            if isinstance(error, DataError):  # it is a manifest that is damaged
                raise
            _logger.warning("All cuts are held in memory: %s", error)
    return CutSet.from_cuts(cut for path in paths for cut in load_manifest(path, root))


def _stream(path: Path, root: Path) -> Iterator[Cut]:
    """The cuts that `load_manifest` gives, a piece of the manifest at a time."""
    again = f"remove {path} and prepare it again"
    is_empty = True
    cuts = iter(CutSet.from_jsonl_lazy(path))
    try:
        while piece := list(islice(cuts, _PIECE)):
            is_empty = False
            yield from _prepared(CutSet.from_cuts(piece), root)
    except Exception as error:  # bytes from anywhere fail in lhotse and below in any way
        raise DataError(
            f"the manifest {path} is damaged: {error or type(error).__name__}", again
        ) from error
    if is_empty:
        raise DataError(f"the manifest {path} holds no cuts", again)


def load_manifest(path: Path, root: Path | None = None) -> CutSet:
    """Cuts of a manifest, in memory. Cuts that hold several utterances are cut into these.

    Args:
        path: the manifest.
        root: folder from which the paths in it count if they lead nowhere from here; None: its own.

    Raises:
        DataError: the manifest is missing, damaged, or holds no cuts.
    """
    again = f"remove {path} and prepare it again"
    require_file(path, "the manifest", error=DataError, hint=again)
    try:
        cuts = _prepared(CutSet.from_jsonl(path).to_eager(), path.parent if root is None else root)
    except Exception as error:  # bytes from anywhere fail in lhotse and below in any way
        raise DataError(
            f"the manifest {path} is damaged: {error or type(error).__name__}", again
        ) from error
    if not len(cuts):
        raise DataError(f"the manifest {path} holds no cuts", again)
    return cuts


def _prepared(cuts: CutSet, root: Path) -> CutSet:
    if any(len(cut.supervisions) > 1 for cut in cuts):
        cuts = cuts.trim_to_supervisions(keep_overlapping=False).to_eager()
    return _with_paths_from(root, cuts)


def _with_paths_from(folder: Path, cuts: CutSet) -> CutSet:
    """Paths in a manifest count from here or from its folder: its first relative path decides.

    A preparation writes paths as it was given them, and is often run from the folder that training
    is run from; a folder that was moved as a whole has all of its files below itself.
    """
    if _is_below(folder, _first_relative(map(_sound_path, cuts))):
        # Absolute paths among them stay what they are.
        cuts = cuts.with_recording_path_prefix(folder.absolute())
    if _is_below(folder, _first_relative(map(_features_path, cuts))):
        cuts = cuts.with_features_path_prefix(folder.absolute())
    return cuts.to_eager()


def _first_relative(paths: Iterable[str | None]) -> str | None:
    return next((path for path in paths if path is not None and not Path(path).is_absolute()), None)


def _is_below(folder: Path, path: str | None) -> bool:
    return path is not None and not Path(path).exists() and (folder / path).exists()


def _sound_path(cut: Cut) -> str | None:
    if not isinstance(cut, MonoCut) or not cut.has_recording:
        return None
    source = cut.recording.sources[0]
    return str(source.source) if source.type == "file" else None


def _features_path(cut: Cut) -> str | None:
    return str(cut.features.storage_path) if isinstance(cut, MonoCut) and cut.has_features else None
