"""Is a corpus fit to be trained on? Every utterance is listened to and its transcript looked at.

    sound.py        what an utterance sounds like, in numbers
    duplicates.py   which of them are the same sound
    checks.py       what is wrong with a corpus, from these numbers and the manifests
    report.py       the findings as text, as a page with plots, as a list, as clean manifests
    start.py        may training start? what was heard before is remembered

Invariant: nothing of the corpus is changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from lhotse.cut import Cut

from snowmelt.core.progress import progress_bar
from snowmelt.data.audit.checks import (
    DEFECTS,
    FATAL_DEFECTS,
    AuditLimits,
    Finding,
    Utterance,
    count_by_defect,
    find_defects,
)
from snowmelt.data.audit.sound import SoundFacts, sound_facts
from snowmelt.text.tokenizer import Tokenizer

__all__ = [
    "DEFECTS",
    "FATAL_DEFECTS",
    "Audit",
    "AuditLimits",
    "Finding",
    "MapTasks",
    "Utterance",
    "audit",
    "count_by_defect",
    "listen",
]

MapTasks = Callable[
    [Callable[[list[Cut]], list[SoundFacts]], Iterable[list[Cut]]], Iterable[list[SoundFacts]]
]

# A task is worth its way to another process, and the bar still moves.
_TASK_CUTS: Final = 32


@dataclass(frozen=True)
class Audit:
    """What was looked at, and what was found."""

    utterances: tuple[Utterance, ...]
    findings: tuple[Finding, ...]

    @property
    def is_fit(self) -> bool:
        """Whether training may start."""
        return not any(finding.is_fatal for finding in self.findings)


def audit(
    splits: Mapping[str, Iterable[Cut]],
    *,
    limits: AuditLimits | None = None,
    tokenizer: Tokenizer | None = None,
    map_tasks: MapTasks = map,
) -> Audit:
    """Listen to all utterances and find what is wrong.

    Args:
        splits: name -> cuts, "train" first: it is what the others must have nothing in common with.
        limits: where something begins to be a defect; None: the usual ones.
        tokenizer: the vocabulary that will be trained with, if it is known.
        map_tasks: like `map`, in order; that of an executor listens in other processes.
    """
    cuts = [(split, cut) for split, those in splits.items() for cut in those]
    facts = listen([cut for _, cut in cuts], map_tasks=map_tasks)
    utterances = tuple(
        Utterance(split, cut, heard) for (split, cut), heard in zip(cuts, facts, strict=True)
    )
    findings = find_defects(utterances, limits=limits or AuditLimits(), tokenizer=tokenizer)
    return Audit(utterances, tuple(findings))


def listen(cuts: Sequence[Cut], *, map_tasks: MapTasks = map) -> list[SoundFacts]:
    """What cuts sound like, in order; arguments as for `audit`."""
    facts: list[SoundFacts] = []
    with progress_bar("listening", total=len(cuts)) as progress:
        for of_task in map_tasks(sound_facts, _tasks(cuts)):
            facts += of_task
            progress.advance(len(of_task))
    return facts


def _tasks(cuts: Sequence[Cut]) -> Iterator[list[Cut]]:
    rest = iter(cuts)
    while task := list(islice(rest, _TASK_CUTS)):
        yield task
