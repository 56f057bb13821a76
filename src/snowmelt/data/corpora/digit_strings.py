"""Which spoken digits follow one another, with what pauses? Strings composed from single digits.

A string is 3 to 7 recordings of one speaker with 0.1-0.4 s of silence before the first, between
two, and after the last.

Invariant: pure functions of names and a seed; no sound, no files. Only `Random.random()` is used:
Python promises that sequence for ever, and numpy does not promise its own, so the published list
of test strings never changes.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from snowmelt.core.errors import DataError

__all__ = ["DigitString", "epoch_strings", "fixed_strings", "strings_table"]

_MIN_LENGTH: Final = 3
_MAX_LENGTH: Final = 7
# Samples at 16 kHz: 0.1 s and 0.4 s.
_MIN_PAUSE: Final = 1600
_MAX_PAUSE: Final = 6400

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class DigitString:
    """One utterance: pause, recording, pause, recording, ..., pause."""

    id: str
    speaker: str
    recordings: tuple[str, ...]
    pauses: tuple[int, ...]  # samples at 16 kHz, one more than there are recordings


def fixed_strings(
    recordings: Mapping[str, Sequence[str]], split: str, count: int
) -> list[DigitString]:
    """A list of strings that is the same for everyone, for dev and test.

    All lengths occur equally often, all speakers too (up to one), and each speaker's recordings
    are dealt from a shuffled deck, so that each is heard about equally often.

    Args:
        recordings: names of the split's recordings, by speaker.
        split: name of the split: the seed, and part of the ids.
        count: number of strings.

    Raises:
        DataError: a speaker has too few recordings for the longest string, or there is none.
    """
    if min(map(len, recordings.values()), default=0) < _MAX_LENGTH:
        raise DataError(
            f"the {split} split needs {_MAX_LENGTH} recordings of each speaker",
            "is it the right archive?",
        )
    rng = random.Random(f"digits {split}")
    names = {speaker: sorted(recordings[speaker]) for speaker in sorted(recordings)}
    lengths = _shuffled(_repeated(range(_MIN_LENGTH, _MAX_LENGTH + 1), count), rng)
    speakers = _shuffled(_repeated(names, count), rng)
    decks: dict[str, list[str]] = {speaker: [] for speaker in names}
    strings = []
    for n, (speaker, length) in enumerate(zip(speakers, lengths, strict=True)):
        if len(decks[speaker]) < length:
            # The few cards left are dropped: no recording occurs twice in a string.
            decks[speaker] = _shuffled(names[speaker], rng)
        dealt = tuple(decks[speaker].pop() for _ in range(length))
        strings.append(DigitString(f"digits-{split}-{n:03d}", speaker, dealt, _pauses(length, rng)))
    return strings


def epoch_strings(
    recordings: Mapping[str, Sequence[str]], seed: int, epoch: int
) -> list[DigitString]:
    """New training strings for an epoch; each recording is used once (two per speaker may rest).

    Args:
        recordings: names of the training recordings, by speaker.
        seed: seed of the run.
        epoch: number of the epoch, part of the ids.
    """
    strings = []
    for speaker in sorted(recordings):
        rng = random.Random(f"digits train {seed} {epoch} {speaker}")
        deck = _shuffled(sorted(recordings[speaker]), rng)
        n = 0
        while len(deck) >= _MIN_LENGTH:
            length = min(_draw(_MIN_LENGTH, _MAX_LENGTH, rng), len(deck))
            dealt = tuple(deck.pop() for _ in range(length))
            string_id = f"digits-train-{epoch}-{speaker}-{n:03d}"
            strings.append(DigitString(string_id, speaker, dealt, _pauses(length, rng)))
            n += 1
    return strings


def strings_table(strings: Sequence[DigitString]) -> str:
    """The strings as tab-separated text: id, speaker, recordings, pauses (in samples)."""
    lines = ["id\tspeaker\trecordings\tpauses"]
    for string in strings:
        pauses = " ".join(str(pause) for pause in string.pauses)
        lines.append(f"{string.id}\t{string.speaker}\t{' '.join(string.recordings)}\t{pauses}")
    return "\n".join(lines) + "\n"


def _pauses(length: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(_draw(_MIN_PAUSE, _MAX_PAUSE, rng) for _ in range(length + 1))


def _draw(low: int, high: int, rng: random.Random) -> int:
    return low + int(rng.random() * (high - low + 1))


def _shuffled(items: Iterable[_Item], rng: random.Random) -> list[_Item]:
    return sorted(items, key=lambda _: rng.random())


def _repeated(items: Iterable[_Item], count: int) -> list[_Item]:
    pool = list(items)
    return [pool[n % len(pool)] for n in range(count)]
