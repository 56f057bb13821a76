"""What was shown while utterances were heard? The texts of each, with the sound heard by then.

The clock is the sound itself: how much of a stream must have been heard before a result could be
known. The silence that is appended at the end counts as if it were heard, as it is from a
microphone; otherwise last words, and long chunks, would seem to come early.

Invariant: no clock of the machine is read; the same decoding gives the same record.
"""

from dataclasses import dataclass, field

from snowmelt.runtime.recognizer import OnlineRecognizer, RecognitionResult
from snowmelt.runtime.scheduler import AudioSource
from snowmelt.text.wer import align

__all__ = ["PartialLog", "Shown", "Update", "standing_since"]


@dataclass(frozen=True)
class Update:
    """A text that differs from the one before it.

    Attributes:
        heard_s: seconds of sound heard when it came.
        text: all words so far.
    """

    heard_s: float
    text: str


@dataclass
class Shown:
    """What was shown of one utterance.

    Attributes:
        updates: each change of the text, in order; the last one is the result.
        heard_s: seconds heard so far; in the end, when the result was final.
        num_steps: chunks decoded so far.
    """

    updates: list[Update] = field(default_factory=list)
    heard_s: float = 0.0
    num_steps: int = 0


class PartialLog:
    """Keeps the partial results of a test set, by the names of the utterances."""

    def __init__(self) -> None:
        self.shown: dict[str, Shown] = {}
        self.chunk_s = 0.0
        self.look_ahead_s = 0.0
        self._recognizer: OnlineRecognizer | None = None

    def begin(self, recognizer: OnlineRecognizer) -> None:
        """Forget everything: the next test set comes.

        Raises:
            ValueError: the recognizer takes several chunks at once, so words come late.
        """
        if recognizer.max_chunks != 1:
            raise ValueError("what is shown when can be told of single chunks only: max_chunks=1")
        self._recognizer = recognizer
        self.shown = {}
        self.chunk_s = recognizer.sound_needed_s(2) - recognizer.sound_needed_s(1)
        self.look_ahead_s = recognizer.sound_needed_s(1) - self.chunk_s

    def add(self, source: AudioSource, result: RecognitionResult) -> None:
        """A stream has been advanced by one chunk: what `scheduler.recognize` calls."""
        assert self._recognizer is not None, "begin was not called"
        shown = self.shown.setdefault(source.name, Shown())
        shown.num_steps += 1
        shown.heard_s = self._recognizer.sound_needed_s(shown.num_steps)
        before = shown.updates[-1].text if shown.updates else ""
        if result.text != before:
            shown.updates.append(Update(shown.heard_s, result.text))


def standing_since(updates: list[Update]) -> list[float]:
    """Since when does each word of the last text stand, without ever having gone again?

    Args:
        updates: at least one.

    Returns:
        seconds heard, one a word of the last text.

    Example:
        >>> standing_since([Update(1, "TWO"), Update(2, "TO BE"), Update(3, "TWO BE OR")])
        [3, 2, 3]
    """
    last = updates[-1]
    words = last.text.split()
    since = [last.heard_s] * len(words)
    standing = set(range(len(words)))
    for update in reversed(updates[:-1]):
        standing &= _common(words, update.text.split())
        for place in standing:
            since[place] = update.heard_s
    return since


def _common(words: list[str], others: list[str]) -> set[int]:
    """Places of `words` that are in `others` too, as the two are aligned."""
    if words[: len(others)] == others:  # nearly always: a text has grown
        return set(range(len(others)))
    places = set()
    place = 0
    for word, other in align(words, others):
        if word is not None:
            if word == other:
                places.add(place)
            place += 1
    return places
