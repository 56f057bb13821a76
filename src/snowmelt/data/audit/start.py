"""May training start with this corpus? Manifests and files are looked at each time, sound once.

What was heard is remembered in a small file, under a key of the utterances, the sizes of their
files and the thresholds: it is heard again if any of these has changed. Of a corpus of more than
20 hours evenly spread utterances are heard; `snowmelt prepare audit` hears all, and is remembered
in the same place.

Invariant: what is remembered is a function of its key; a memory that cannot be read or written
costs time only.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lhotse.cut import Cut, MixedCut, MonoCut

from snowmelt.core.errors import DataError, UserError
from snowmelt.core.files import is_lfs_pointer, write_text
from snowmelt.data.audit import AuditLimits, Finding, MapTasks, Utterance, count_by_defect, listen
from snowmelt.data.audit.checks import in_order, manifest_defects, sound_defects
from snowmelt.data.cuts import cut_text, is_speed_copy
from snowmelt.data.stored_cuts import CutSequence, as_sequence
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["StartAudit", "audit_at_start", "memory_path", "remember_heard"]

_logger = logging.getLogger(__name__)

# Two minutes of one core; what is wrong with a whole corpus is heard in it.
_MAX_HEARD_S: Final = 20 * 3600.0
# Of a corpus that is not in memory: half a gigabyte of objects.
_MAX_SEEN: Final = 100_000
# Less is heard faster here than other processes start.
_MIN_SHARED_S: Final = 3600.0
# Parts and thresholds change back and forth.
_KEYS_KEPT: Final = 10
# A pointer of git-lfs is a few short lines: larger files are not opened.
_MAX_POINTER_BYTES: Final = 1024

# What is found by hearing, and depends on these thresholds.
_HEARD: Final = frozenset(
    {
        "missing",
        "lfs-pointer",
        "unreadable",
        "wrong-rate",
        "silent",
        "clipped",
        "duplicate",
        "duplicate-across-splits",
        "rate-outlier",
    }
)
_OTHER_THRESHOLDS: Final = ("min_utterance_s", "max_utterance_s")
# Changes when the same sound would give other findings.
_VERSION: Final = 1


@dataclass(frozen=True)
class StartAudit:
    """What was looked at before a training, and what was found.

    Attributes:
        corpus: its name.
        num_utterances: in all splits.
        num_seen: of these, whose manifests and files were looked at.
        num_heard: of these, now or before; None: features are stored, sound is not needed.
        is_remembered: whether they were heard before.
        findings: in the order of `DEFECTS`.
    """

    corpus: str
    num_utterances: int
    num_seen: int
    num_heard: int | None
    is_remembered: bool
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        if self.num_heard is None:
            heard = "looked at but not heard"
        else:
            share = "all" if self.num_heard == self.num_utterances else f"{self.num_heard} of them"
            heard = f"{share} heard{' before' if self.is_remembered else ''}"
        found = "nothing was found"
        if self.findings:
            found = f"{self._counts(self.findings)} (snowmelt prepare audit names them)"
        seen = f"{self.num_utterances} utterances"
        if self.num_seen < self.num_utterances:
            seen += f", {self.num_seen} of them looked at"
        return f"Audit of {self.corpus}: {seen}, {heard}: {found}"

    def require_fit(self) -> None:
        """Go on only if training may start.

        Raises:
            DataError: it must not.
        """
        fatal = [finding for finding in self.findings if finding.is_fatal]
        if fatal:
            raise DataError(
                f"training must not start on {self.corpus}: {self._counts(fatal)}; the first: "
                f"{fatal[0].cut_id}: {fatal[0].detail}",
                f"snowmelt prepare audit {self.corpus} names all and writes manifests without "
                "them; --audit 0 trains all the same",
            )

    @staticmethod
    def _counts(findings: Iterable[Finding]) -> str:
        return ", ".join(f"{count} {name}" for name, count in count_by_defect(findings).items())


def memory_path(data_dir: Path, corpus: str) -> Path:
    """Where it is kept what was heard of a corpus: beside the report of its audit."""
    return data_dir / "audit" / corpus / "heard.json"


def audit_at_start(
    corpus: str,
    splits: Mapping[str, Iterable[Cut]],
    *,
    memory: Path,
    limits: AuditLimits,
    tokenizer: Tokenizer,
    has_sound: bool = True,
    ignored: frozenset[str] = frozenset(),
    map_tasks: MapTasks = map,
) -> StartAudit:
    """Look at all utterances of a corpus, and listen to them unless that was done before.

    Args:
        corpus: its name.
        splits: name -> cuts, "train" first.
        memory: see `memory_path`.
        limits: where something begins to be a defect.
        tokenizer: the vocabulary that is trained with.
        has_sound: False: stored features are trained on, their files must be there.
        ignored: defects that are none in this corpus.
        map_tasks: like `map`, in order; listens to more than an hour of sound.
    """
    sequences = {split: as_sequence(cuts) for split, cuts in splits.items()}
    num_utterances = sum(map(len, sequences.values()))
    utterances = [
        Utterance(split, cut, None) for split, cuts in sequences.items() for cut in _some(cuts)
    ]
    sizes = _sizes(utterances, has_sound=has_sound)
    findings = [
        *manifest_defects(utterances, limits=limits, tokenizer=tokenizer),
        *_file_defects(utterances, sizes, has_sound=has_sound),
    ]
    num_heard, is_remembered = None, False
    if has_sound:
        key = _key(utterances, sizes, limits)
        heard = _recalled(memory, key)
        is_remembered = heard is not None
        if heard is None:
            broken = {(finding.split, finding.cut_id) for finding in findings if finding.is_fatal}
            num_heard, found = _hear(
                [u for u in utterances if (u.split, u.cut.id) not in broken], limits, map_tasks
            )
            _remember(memory, key, num_heard, found)
        else:
            num_heard, found = heard
        # A file that is gone was found without listening.
        named = {(f.defect, f.split, f.cut_id) for f in findings}
        findings += [f for f in found if (f.defect, f.split, f.cut_id) not in named]
    kept = [finding for finding in findings if finding.defect not in ignored]
    return StartAudit(
        corpus, num_utterances, len(utterances), num_heard, is_remembered, tuple(in_order(kept))
    )


def remember_heard(
    memory: Path, utterances: Sequence[Utterance], findings: Iterable[Finding], limits: AuditLimits
) -> None:
    """Keep what a whole audit has found, so that no training has to listen again.

    Args:
        memory: see `memory_path`.
        utterances: of all splits, all heard.
        findings: all of them.
        limits: with which they were found.
    """
    key = _key(utterances, _sizes(utterances, has_sound=True), limits)
    _remember(memory, key, len(utterances), [f for f in findings if f.defect in _HEARD])


def _some(cuts: Sequence[Cut]) -> Sequence[Cut]:
    """The cuts; of more than memory should hold, evenly spread ones."""
    is_stored = isinstance(cuts, CutSequence)
    return cuts[:: math.ceil(len(cuts) / _MAX_SEEN)] if is_stored and len(cuts) else cuts


def _hear(
    utterances: Sequence[Utterance], limits: AuditLimits, map_tasks: MapTasks
) -> tuple[int, list[Finding]]:
    # A copy at another speed is the same file again.
    chosen = [utterance for utterance in utterances if not is_speed_copy(utterance.cut)]
    seconds = sum(float(utterance.cut.duration) for utterance in chosen)
    chosen = chosen[:: max(1, math.ceil(seconds / _MAX_HEARD_S))]
    facts = listen(
        [utterance.cut for utterance in chosen],
        map_tasks=map_tasks if seconds > _MIN_SHARED_S else map,
    )
    heard = [Utterance(u.split, u.cut, its) for u, its in zip(chosen, facts, strict=True)]
    return len(heard), sound_defects(heard, limits=limits)


def _sizes(utterances: Iterable[Utterance], *, has_sound: bool) -> dict[str, int]:
    """Bytes of each file that is read in training; -1: it is not there."""
    sizes: dict[str, int] = {}
    for utterance in utterances:
        for name in _files(utterance.cut, has_sound=has_sound):
            if name not in sizes:
                sizes[name] = _size(name)
    return sizes


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError:
        return -1


def _files(cut: Cut, *, has_sound: bool) -> list[str]:
    if isinstance(cut, MixedCut):
        return [name for t in cut.tracks for name in _files(t.cut, has_sound=has_sound)]
    if not isinstance(cut, MonoCut):
        return []
    if not has_sound:
        return [str(cut.features.storage_path)] if cut.has_features else []
    if not cut.has_recording:
        return []
    return [str(s.source) for s in cut.recording.sources if s.type == "file"]


def _file_defects(
    utterances: Iterable[Utterance], sizes: Mapping[str, int], *, has_sound: bool
) -> Iterable[Finding]:
    for split, cut, _ in utterances:
        for name in _files(cut, has_sound=has_sound):
            if sizes[name] < 0:
                yield Finding("missing", split, cut.id, f"{name} does not exist")
            elif sizes[name] <= _MAX_POINTER_BYTES and _is_pointer(name):
                what = "the sound" if has_sound else "the features"
                detail = f"{name} is a git-lfs pointer, not {what} itself"
                yield Finding("lfs-pointer", split, cut.id, detail)


def _is_pointer(name: str) -> bool:
    try:
        return is_lfs_pointer(name)
    except OSError:
        return False  # listening says what is wrong with it


def _key(utterances: Iterable[Utterance], sizes: Mapping[str, int], limits: AuditLimits) -> str:
    """Of everything that decides what is found by listening."""
    thresholds = {n: v for n, v in asdict(limits).items() if n not in _OTHER_THRESHOLDS}
    digest = hashlib.sha256(json.dumps([_VERSION, thresholds]).encode())
    for split, cut, _ in utterances:
        files = [(name, sizes[name]) for name in _files(cut, has_sound=True)]
        of_cut = (split, cut.id, float(cut.start), float(cut.duration), cut_text(cut), files)
        digest.update(repr(of_cut).encode())
    return digest.hexdigest()


def _recalled(memory: Path, key: str) -> tuple[int, list[Finding]] | None:
    try:
        kept = _read(memory)[key]
        return int(kept["num_heard"]), [Finding(*finding) for finding in kept["findings"]]
    except (KeyError, TypeError, ValueError):
        return None


def _remember(memory: Path, key: str, num_heard: int, findings: Iterable[Finding]) -> None:
    others = {k: v for k, v in _read(memory).items() if k != key}
    kept = dict(list(others.items())[1 - _KEYS_KEPT :])
    kept[key] = {"num_heard": num_heard, "findings": [list(finding) for finding in findings]}
    try:
        write_text(memory, json.dumps(kept, ensure_ascii=False) + "\n")
    except UserError as error:
        _logger.debug("what was heard is not remembered: %s", error)


def _read(memory: Path) -> dict[str, Any]:
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
