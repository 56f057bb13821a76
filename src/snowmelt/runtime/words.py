"""When was each word said, and how sure is the model of it? Tokens with times become words.

Invariant: the words joined by blanks are the tokenizer's text of the same tokens, or the words that
a graph has found.

Source: icefall, icefall/utils.py, parse_hyp_and_timestamp (which token begins a word).
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from snowmelt.text.tokenizer import joined_tokens

__all__ = ["Word", "graph_words", "timed_words"]

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
        else Word(text, start, start, 1.0)
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
    end = round(timestamps[group[-1]] + _LONGEST_TOKEN_S, 3)
    if group[-1] + 1 < len(timestamps):
        end = min(end, timestamps[group[-1] + 1])
    logprob = sum(token_logprobs[i] for i in group) / len(group)
    return Word(text, timestamps[group[0]], end, math.exp(logprob))
