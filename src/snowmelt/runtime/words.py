"""When was each token and word said, and how sure is the model of it?

A token lasts from the frame that emits it to the next one's, a word from its first token to its
last.

Invariant: the words joined by blanks are the tokenizer's text of the same tokens, or the words that
a graph has found. `token_ends` is the only place that says how long something lasts.

Source: icefall, icefall/utils.py, parse_hyp_and_timestamp (which token begins a word).
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from snowmelt.text.tokenizer import joined_tokens

__all__ = ["Word", "confidence", "graph_words", "timed_words", "token_ends"]

_WORD_START: Final = "▁"

# A transducer says when a token begins only. Eight encoder frames: longer is silence.
_LONGEST_TOKEN_S: Final = 0.32


class Word(NamedTuple):
    """One recognised word.

    Attributes:
        text: the word.
        start: seconds at which its first token was emitted.
        end: seconds at which its last token ends: when the next one begins, or a little later.
        confidence: exp(mean log-probability of its tokens), 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


def token_ends(timestamps: Sequence[float]) -> tuple[float, ...]:
    """Seconds at which tokens end: when the next one begins, at most 0.32 s after their begin.

    Args:
        timestamps: seconds at which they begin, never falling.

    Example:
        >>> token_ends([0.2, 0.24, 2.0])
        (0.24, 0.56, 2.32)
    """
    following = (*timestamps[1:], math.inf)
    return tuple(
        min(round(start + _LONGEST_TOKEN_S, 3), end)
        for start, end in zip(timestamps, following, strict=False)
    )


def confidence(token_logprobs: Sequence[float]) -> float:
    """How sure the model is of some tokens together: exp(mean log-probability), 0 to 1; none: 1."""
    if not token_logprobs:
        return 1.0
    return math.exp(sum(token_logprobs) / len(token_logprobs))


def timed_words(
    tokens: Sequence[str], timestamps: Sequence[float], token_logprobs: Sequence[float]
) -> tuple[Word, ...]:
    """Group tokens into words.

    Args:
        tokens: printed forms; one that begins with "▁" begins a word, a lone "▁" is the blank
            before the next one.
        timestamps: seconds, one a token.
        token_logprobs: natural logarithms, one a token.
    """
    return tuple(
        _word(text, group, timestamps, token_logprobs) for text, group in _spelled_words(tokens)
    )


def graph_words(
    words: Sequence[str],
    word_timestamps: Sequence[float],
    tokens: Sequence[str],
    timestamps: Sequence[float],
    token_logprobs: Sequence[float],
) -> tuple[Word, ...]:
    """Times of the words that a search on a graph has found.

    A graph gives a word with the first token that leaves no other choice, which may be one inside
    the word. So where the tokens spell as many words, the word begins with the first of its own;
    otherwise (pieces that do not say where words begin, a word that is not complete) tokens belong
    to the last word that was given before or with them. Words given at once share their tokens.

    Args:
        words: the words.
        word_timestamps: seconds at which the graph gave each, never falling.
        tokens: printed forms.
        timestamps: seconds, one a token.
        token_logprobs: natural logarithms, one a token.
    """
    groups = [group for _, group in _spelled_words(tokens)]
    if len(groups) != len(words):
        starts = [
            word_timestamps[max(0, bisect_right(word_timestamps, time) - 1)]
            for time in (timestamps if words else ())
        ]
        groups = [[i for i, s in enumerate(starts) if s == start] for start in word_timestamps]
    return tuple(
        _word(text, group, timestamps, token_logprobs)
        # A graph with steps that take no token may give a word after the last one.
        if group
        else Word(text, start, start, confidence(()))
        for text, start, group in zip(words, word_timestamps, groups, strict=True)
    )


def _spelled_words(tokens: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """The words that tokens spell, and the places of each one's tokens."""
    groups: list[list[int]] = []
    for i, token in enumerate(tokens):
        if not groups or token.startswith(_WORD_START):
            groups.append([])
        groups[-1].append(i)
    for group in groups:
        text = joined_tokens([tokens[i] for i in group]).removeprefix(_WORD_START)
        # Nothing follows the blank: it began no word.
        if text:
            yield text, group


def _word(
    text: str, group: Sequence[int], timestamps: Sequence[float], token_logprobs: Sequence[float]
) -> Word:
    """A word of the tokens at the places `group`."""
    end = token_ends(timestamps[group[-1] : group[-1] + 2])[0]
    return Word(text, timestamps[group[0]], end, confidence([token_logprobs[i] for i in group]))
