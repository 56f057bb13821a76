"""Which token is spoken at each encoder frame? Word times, given or guessed, as frame labels.

Some corpora know when each word is spoken. For the others `spread_words` guesses: the words follow
one another without gaps between the first and the last loud frame. The guess is rough, yet it shows
a fresh model which sounds belong to which words long before it finds out by itself ("flat start",
as hidden Markov models have always been started).

Invariant: pure functions; labels are exact only where the times are.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.presets.frames import (
    ENCODER_FRAME_S,
    FEATURE_FRAME_S,
    ZIPFORMER_FRONT_END,
    FrontEnd,
)
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["NO_TARGET", "TimedWord", "frame_tokens", "spread_words"]

# Marks encoder frames whose token is not known; the value that cross-entropies skip.
NO_TARGET: Final = -100

# A spoken letter lasts about half as long as a word of eight letters.
_LETTERS_IN_ANY_WORD: Final = 7
# Where between the quiet and the loud frames of an utterance speech begins.
_SPEECH_LEVEL: Final = 0.35


class TimedWord(NamedTuple):
    """A word and the seconds at which it starts and ends."""

    word: str
    start_s: float
    end_s: float


def frame_tokens(
    words: Iterable[TimedWord],
    num_encoder_frames: int,
    tokenizer: Tokenizer,
    *,
    front_end: FrontEnd = ZIPFORMER_FRONT_END,
) -> npt.NDArray[np.int64]:
    """Token spoken at each encoder frame.

    Args:
        words: in order of time.
        num_encoder_frames: T'.
        tokenizer: gives the tokens of a word.
        front_end: tells which time an encoder frame stands for.

    Returns:
        (T',) int64: 0 (blank) between words, NO_TARGET inside a word of several tokens, whose
        borders nobody knows.
    """
    labels = np.zeros(num_encoder_frames, np.int64)
    for word in words:
        first, last = (
            max(0, math.ceil((time - front_end.encoder_centre_s) / ENCODER_FRAME_S))
            for time in (word.start_s, word.end_s)
        )
        token_ids = tokenizer.encode(word.word)
        labels[first:last] = token_ids[0] if len(token_ids) == 1 else NO_TARGET
    return labels


def spread_words(words: Sequence[str], features: npt.NDArray[np.float32]) -> list[TimedWord]:
    """Guess word times: longer words longer, all between the first and the last loud frame.

    Args:
        words: the transcript.
        features: (T, F) log-mel features of the utterance, 10 ms a frame.
    """
    if not words or not len(features):
        return []
    loudness = features.mean(axis=1)
    quiet, loud = np.percentile(loudness, (10, 95))
    (speech,) = np.nonzero(loudness >= quiet + _SPEECH_LEVEL * (loud - quiet))
    first, last = int(speech[0]), int(speech[-1]) + 1
    shares = np.cumsum([0, *(_LETTERS_IN_ANY_WORD + len(word) for word in words)])
    borders = (first + (last - first) * shares / shares[-1]) * FEATURE_FRAME_S
    return [
        TimedWord(word, float(start), float(end))
        for word, start, end in zip(words, borders[:-1], borders[1:], strict=True)
    ]
