"""How far are the times of recognised words from the truth, where a corpus knows it?

Invariant: only words that were recognised are counted, each with the one it stands for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snowmelt.evaluate.utterances import Hypothesis
from snowmelt.text.wer import align

__all__ = ["TimeErrors", "WordTimes", "word_times"]


class TimeErrors(NamedTuple):
    """Seconds by which times are off.

    Attributes:
        bias_s: mean; above 0 too late.
        median_s: half of them are not further off, to either side.
        p90_s: nine of ten are not further off.
    """

    bias_s: float
    median_s: float
    p90_s: float

    def __str__(self) -> str:
        return f"median {self.median_s:.3f} s, p90 {self.p90_s:.3f} s, bias {self.bias_s:+.3f} s"


@dataclass(frozen=True)
class WordTimes:
    """Errors of the times of words.

    Attributes:
        num_words: words compared.
        start: of their beginnings.
        end: of their ends.
    """

    num_words: int
    start: TimeErrors
    end: TimeErrors

    def __str__(self) -> str:
        return f"times of {self.num_words} words: start {self.start}; end {self.end}"


def word_times(rows: Iterable[Hypothesis]) -> WordTimes | None:
    """Errors over a test set; None if it knows no times or no word was recognised."""
    errors = [pair for row in rows for pair in _errors(row)]
    if not errors:
        return None
    starts, ends = zip(*errors, strict=True)
    return WordTimes(len(errors), _summary(starts), _summary(ends))


def _errors(row: Hypothesis) -> list[tuple[float, float]]:
    """Of start and end of each word that was recognised."""
    said, found = row.utterance.timed_words, row.nbest[0].words
    if [word.word for word in said] != row.utterance.words:
        return []
    errors = []
    i = j = 0
    for true_word, word in align(row.utterance.words, [word.text for word in found]):
        if true_word is not None and true_word == word:
            errors.append((found[j].start - said[i].start_s, found[j].end - said[i].end_s))
        i += true_word is not None
        j += word is not None
    return errors


def _summary(errors: Sequence[float]) -> TimeErrors:
    median, p90 = np.percentile(np.abs(errors), (50, 90))
    values = (float(np.mean(errors)), float(median), float(p90))
    return TimeErrors(*(round(value, 6) for value in values))
