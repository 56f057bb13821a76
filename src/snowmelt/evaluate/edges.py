"""Where in an utterance are the errors: at its first word, at its last, before or after them?

Invariant: a pure function of words; the alignment is that of the word error rate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from snowmelt.text.wer import Result, align

__all__ = ["EdgeErrors", "edge_errors"]


@dataclass(frozen=True)
class EdgeErrors:
    """Of a test set.

    Attributes:
        num_utterances: those in which something was said.
        first_lost: first words that were not recognised at all.
        first_wrong: first words in whose place others were recognised.
        last_lost: likewise last words.
        last_wrong: likewise.
        inserted_before: words recognised before the first.
        inserted_after: words recognised after the last.
    """

    num_utterances: int = 0
    first_lost: int = 0
    first_wrong: int = 0
    last_lost: int = 0
    last_wrong: int = 0
    inserted_before: int = 0
    inserted_after: int = 0

    def __str__(self) -> str:
        return (
            f"first words: {self.first_lost} lost, {self.first_wrong} wrong, "
            f"{self.inserted_before} words before them; last words: {self.last_lost} lost, "
            f"{self.last_wrong} wrong, {self.inserted_after} words after them; of "
            f"{self.num_utterances} utterances"
        )


def edge_errors(results: Iterable[Result]) -> EdgeErrors:
    """Errors at the first and last words of utterances.

    Example:
        >>> errors = edge_errors([("a", ["ONE", "TWO"], ["OH", "ONE"]), ("b", [], [])])
        >>> errors.num_utterances, errors.inserted_before, errors.last_lost
        (1, 1, 1)
    """
    counts = EdgeErrors()
    for _, said, found in results:
        if not said:
            continue
        alignment = align(said, found)
        places = [n for n, (word, _) in enumerate(alignment) if word is not None]
        first, last = alignment[places[0]], alignment[places[-1]]
        counts = EdgeErrors(
            num_utterances=counts.num_utterances + 1,
            first_lost=counts.first_lost + (first[1] is None),
            first_wrong=counts.first_wrong + (first[1] not in (None, first[0])),
            last_lost=counts.last_lost + (last[1] is None),
            last_wrong=counts.last_wrong + (last[1] not in (None, last[0])),
            inserted_before=counts.inserted_before + places[0],
            inserted_after=counts.inserted_after + len(alignment) - 1 - places[-1],
        )
    return counts
