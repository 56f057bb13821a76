"""Subtitles: every word once and in time, cues that can be read, files that players read."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from snowmelt.runtime.subtitles import Cue, cues, srt, vtt
from snowmelt.runtime.words import Word
from tests.runtime.subtitle_files import read_srt, read_vtt


def _said(*timed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, 0.9) for text, start, end in timed]


@st.composite
def _speech(draw):
    """Words of any letters with any pauses, some given at once."""
    words, time = [], draw(st.integers(0, 5_000_000))
    for _ in range(draw(st.integers(0, 60))):
        text = draw(st.text("ab&<>é->", min_size=1, max_size=50))
        length = draw(st.sampled_from([0, 40, 200, 320, 9000]))
        words.append(Word(text, time / 1000, (time + length) / 1000, 1.0))
        time += length + draw(st.sampled_from([0, 40, 500, 799, 800, 4000]))
    return words


@given(_speech())
def test_every_word_is_shown_once_and_in_time(words):
    shown = cues(words)
    texts = [text for cue in shown for text in " ".join(cue.lines).split()]
    assert texts == [word.text for word in words]
    place = 0
    for cue, after in zip(shown, [*shown, None][1:], strict=True):
        own = words[place : place + len(" ".join(cue.lines).split())]
        place += len(own)
        assert cue.start == own[0].start < cue.end
        if after is not None:
            assert cue.end <= max(after.start, round(cue.start + 0.001, 3))
        # No pause inside, nothing too long for a screen or a glance, but for a single word.
        assert all(round(b.start - a.end, 3) < 0.8 for a, b in pairwise(own))
        if len(own) > 1:
            assert len(" ".join(cue.lines)) <= 84
            assert own[-1].end - own[0].start <= 7.0


@given(_speech())
def test_files_say_what_the_cues_say(words):
    shown = cues(words)
    expected = [(round(1000 * c.start), round(1000 * c.end), "\n".join(c.lines)) for c in shown]
    assert read_vtt(vtt(shown)) == expected
    plain = [
        Cue(c.start, c.end, tuple(line.replace("-->", "") or "x" for line in c.lines))
        for c in shown
    ]
    assert [cue[:2] for cue in read_srt(srt(plain))] == [cue[:2] for cue in expected]


def test_the_files_to_the_letter():
    words = _said(("YES", 0.5, 0.82), ("R&B", 3661.2, 3661.4), ("<3", 3661.4, 3661.72))
    assert srt(cues(words)) == (
        "1\n00:00:00,500 --> 00:00:01,500\nYES\n\n2\n01:01:01,200 --> 01:01:02,200\nR&B <3\n"
    )
    assert vtt(cues(words)) == (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:01.500\nYES\n"
        "\n01:01:01.200 --> 01:01:02.200\nR&amp;B &lt;3\n"
    )
    assert srt([]) == "" and vtt([]) == "WEBVTT\n" and cues([]) == []


def test_a_long_sentence_is_parted_at_its_widest_pause():
    # Thirty words of six letters, 0.3 s apart: a pause of half a second after the eighteenth.
    words, time = [], 0.0
    for n in range(30):
        words.append(Word("banana", round(time, 3), round(time + 0.2, 3), 1.0))
        time += 0.7 if n == 17 else 0.3
    lens = [len(" ".join(cue.lines).split()) for cue in cues(words)]
    assert lens == [9, 9, 12]
    assert [len(cue.lines) for cue in cues(words)] == [2, 2, 2]


def test_times_count_from_the_start_of_the_segment():
    (cue,) = cues(_said(("A", 0.5, 0.82)), start_time=60.0)
    assert (cue.start, cue.end) == (60.5, 61.5)


def test_a_cue_makes_room_for_the_next():
    first, second = cues(_said(("A", 0.0, 0.04), ("B", 0.84, 1.0)))
    assert (first.end, second.end) == (0.84, 1.84)
