"""How do two results of the same test set differ, and where most?

Invariant: both hold the same utterances with the same reference words; anything else is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from snowmelt.core.errors import DataError
from snowmelt.evaluate.results import SetResult
from snowmelt.evaluate.significance import (
    Bootstrap,
    MatchedPairs,
    bootstrap,
    matched_pairs,
    segment_errors,
)
from snowmelt.text.wer import WerStats, score

__all__ = ["Comparison", "Difference", "compare"]

# As many as fit on a screen.
_NUM_DIFFERENCES: Final = 10


class Difference(NamedTuple):
    """An utterance in which one result is better.

    Attributes:
        utterance_id: its id.
        errors_a: word errors of the first result.
        errors_b: of the second.
        ref: what was said.
        hyp_a: what the first recognised.
        hyp_b: what the second did.
    """

    utterance_id: str
    errors_a: int
    errors_b: int
    ref: list[str]
    hyp_a: list[str]
    hyp_b: list[str]


@dataclass(frozen=True)
class Comparison:
    """Two results of a test set.

    Attributes:
        num_utterances: in the test set.
        stats_a: word errors of the first.
        stats_b: of the second.
        by_utterance: bootstrap over utterances.
        by_speaker: over speakers; None if they are not known, or are one only.
        pairs: the matched pairs test.
        num_better_a: utterances in which the first has fewer errors.
        num_better_b: in which the second has.
        differences: those that differ most, at most ten.
    """

    num_utterances: int
    stats_a: WerStats
    stats_b: WerStats
    by_utterance: Bootstrap
    by_speaker: Bootstrap | None
    pairs: MatchedPairs
    num_better_a: int
    num_better_b: int
    differences: tuple[Difference, ...]


def compare(a: SetResult, b: SetResult) -> Comparison:
    """Compare two results.

    Raises:
        DataError: they are of different test sets, or no word was said in it.
    """
    _check_same(a, b)
    rows = [
        Difference(
            utterance_id,
            score([(utterance_id, ref, hyp_a)]).errors,
            score([(utterance_id, ref, hyp_b)]).errors,
            list(ref),
            list(hyp_a),
            list(hyp_b),
        )
        for (utterance_id, ref, hyp_a), (_, _, hyp_b) in zip(a.rows, b.rows, strict=True)
    ]
    ids = [row.utterance_id for row in rows]
    segments = [pair for row in rows for pair in segment_errors(row.ref, row.hyp_a, row.hyp_b)]
    differing = [row for row in rows if row.errors_a != row.errors_b]
    differing.sort(key=lambda row: (-abs(row.errors_a - row.errors_b), row.utterance_id))
    speakers = a.speakers or b.speakers
    num_speakers = len({speakers[utterance_id] for utterance_id in ids} if speakers else ())
    return Comparison(
        num_utterances=len(rows),
        stats_a=score(a.rows),
        stats_b=score(b.rows),
        by_utterance=_drawn(rows, {utterance_id: utterance_id for utterance_id in ids}),
        by_speaker=_drawn(rows, speakers) if num_speakers > 1 else None,
        pairs=matched_pairs(segments),
        num_better_a=sum(row.errors_a < row.errors_b for row in rows),
        num_better_b=sum(row.errors_b < row.errors_a for row in rows),
        differences=tuple(differing[:_NUM_DIFFERENCES]),
    )


def _drawn(rows: Sequence[Difference], units: Mapping[str, str]) -> Bootstrap:
    """Bootstrap over groups of utterances."""
    sums: dict[str, list[int]] = {}
    for row in rows:
        own = sums.setdefault(units[row.utterance_id], [0, 0, 0])
        for i, count in enumerate((row.errors_a, row.errors_b, len(row.ref))):
            own[i] += count
    return bootstrap(*np.array([sums[unit] for unit in sorted(sums)]).T)


def _check_same(a: SetResult, b: SetResult) -> None:
    ids_a, ids_b = ({row[0] for row in result.rows} for result in (a, b))
    for ids, result, others in ((ids_b - ids_a, b, a), (ids_a - ids_b, a, b)):
        if ids:
            raise DataError(
                f"{result.name} has {len(ids)} utterances that {others.name} lacks, such as "
                f"{min(ids)}",
                "compare results of the same test set",
            )
    for (utterance_id, ref_a, _), (_, ref_b, _) in zip(a.rows, b.rows, strict=True):
        if list(ref_a) != list(ref_b):
            raise DataError(
                f"what was said in {utterance_id} is {' '.join(ref_a)!r} in {a.name} and "
                f"{' '.join(ref_b)!r} in {b.name}",
                "compare results with the same transcripts",
            )
    if not any(ref for _, ref, _ in a.rows):
        raise DataError(f"{a.name} holds no word that was said", "compare results of speech")
