"""Reads subtitles by the rules of their formats, and refuses what the rules do not allow.

Written from the W3C's WebVTT text and from what players agree on for SubRip; shares nothing with
`snowmelt.runtime.subtitles`.
"""

import html
import re
from typing import NamedTuple


class Shown(NamedTuple):
    start_ms: int
    end_ms: int
    text: str


_SRT_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})"
_VTT_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"


def read_srt(text: str) -> list[Shown]:
    """Blocks of a number, a line of times and text, parted by empty lines; numbered from 1."""
    if not text:
        return []
    assert text.endswith("\n") and not text.endswith("\n\n")
    cues = []
    for number, block in enumerate(text.removesuffix("\n").split("\n\n"), start=1):
        first, times, *lines = block.split("\n")
        assert first == str(number)
        cues.append(_cue(_SRT_TIME, times, lines))
    return cues


def read_vtt(text: str) -> list[Shown]:
    """The signature, an empty line, then blocks; `<`, `>` and `&` only as parts of escapes."""
    assert text.startswith("WEBVTT\n\n") or text == "WEBVTT\n"
    cues: list[Shown] = []
    for block in text.removeprefix("WEBVTT\n").strip("\n").split("\n\n"):
        if not block:
            continue
        times, *lines = block.split("\n")
        for line in lines:
            assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", line)
        cue = _cue(_VTT_TIME, times, [html.unescape(line) for line in lines])
        # The standard: a cue begins no earlier than those before it.
        assert not cues or cues[-1].start_ms <= cue.start_ms
        cues.append(cue)
    return cues


def _cue(time: str, times: str, lines: list[str]) -> Shown:
    match = re.fullmatch(f"{time} --> {time}", times)
    assert match, times
    numbers = [int(group) for group in match.groups()]
    start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
    assert start < end
    assert lines and all(line.strip() == line != "" for line in lines)
    return Shown(start, end, "\n".join(lines))
