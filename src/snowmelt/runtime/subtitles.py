"""Which words are on the screen together, and when? Words with times become SRT or WebVTT cues.

A pause ends a cue. What is too long for a screen is parted at its widest pause near the middle.

Invariant: pure functions. Every word is in one cue, cues come in order, each ends after it begins
and at the latest when the next one begins.

Source: W3C, WebVTT: The Web Video Text Tracks Format; SubRip's format has no standard.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from snowmelt.runtime.words import Word

__all__ = ["Cue", "cues", "srt", "vtt"]

# Two lines of 42 characters for at most 7 s: what broadcasters and streaming services ask for.
_LINE_CHARS: Final = 42
_CUE_CHARS: Final = 2 * _LINE_CHARS
_CUE_S: Final = 7.0

# Between sentences people rest longer, inside them rarely as long.
_PAUSE_S: Final = 0.8

# Nobody reads faster.
_SHORTEST_CUE_S: Final = 1.0

_VTT_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Cue(NamedTuple):
    """What is shown at a time.

    Attributes:
        start: seconds.
        end: seconds, after `start`.
        lines: one or two of text.
    """

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Sequence[Word], start_time: float = 0.0) -> list[Cue]:
    """Cues of the words of one recording.

    Args:
        words: in order of time.
        start_time: what their times count from, in seconds.
    """
    groups = [part for group in _between_pauses(words) for part in _parts(group)]
    starts = [start_time + group[0].start for group in groups]
    limits = [*starts, float("inf")][1:]
    made = []
    for group, start, limit in zip(groups, starts, limits, strict=True):
        end = min(max(start_time + group[-1].end, start + _SHORTEST_CUE_S), limit)
        # Words that a graph gives at once begin at once.
        end = max(end, start + 0.001)
        made.append(Cue(round(start, 3), round(end, 3), _lines([word.text for word in group])))
    return made


def srt(shown: Sequence[Cue]) -> str:
    """SubRip text; empty without cues."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_text(cue)}"
        for number, cue in enumerate(shown, start=1)
    )


def vtt(shown: Sequence[Cue]) -> str:
    """WebVTT text; the head alone without cues."""
    blocks = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{_text(cue).translate(_VTT_ESCAPES)}"
        for cue in shown
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _between_pauses(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    begin = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or _pause_s(words, i) >= _PAUSE_S:
            yield words[begin:i]
            begin = i


def _parts(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """The words, parted until each part fits; a single word always does."""
    num_chars = sum(len(word.text) + 1 for word in words) - 1
    if len(words) == 1 or (num_chars <= _CUE_CHARS and words[-1].end - words[0].start <= _CUE_S):
        yield words
        return
    # Not near the ends: a word or two alone would flicker.
    margin = len(words) // 4
    places = range(max(1, margin), min(len(words) - 1, len(words) - margin) + 1)
    place = max(places, key=lambda i: (_pause_s(words, i), -abs(2 * i - len(words))))
    yield from _parts(words[:place])
    yield from _parts(words[place:])


def _pause_s(words: Sequence[Word], i: int) -> float:
    """Silence before a word; rounded, so that equal pauses are equal."""
    return round(words[i].start - words[i - 1].end, 3)


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    """One line, or two that are as equal as can be."""
    whole = " ".join(texts)
    if len(whole) <= _LINE_CHARS or len(texts) == 1:
        return (whole,)
    pairs = [(" ".join(texts[:i]), " ".join(texts[i:])) for i in range(1, len(texts))]
    return min(pairs, key=lambda pair: max(map(len, pair)))


def _text(cue: Cue) -> str:
    return "".join(f"{line}\n" for line in cue.lines)


def _time(seconds: float, separator: str) -> str:
    millis = round(1000 * seconds)
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{millis // 1000:02}{separator}{millis % 1000:03}"
