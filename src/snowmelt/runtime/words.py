"""When was each word said, and how sure is the model of it? Tokens with times become words.

Invariant: the words joined by blanks are the tokenizer's text of the same tokens.

Source: icefall, icefall/utils.py, parse_hyp_and_timestamp (which token begins a word).
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["Word", "timed_words"]

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
    groups: list[list[int]] = []
    for i, token in enumerate(tokens):
        if not groups or token.startswith(_WORD_START):
            groups.append([])
        groups[-1].append(i)
    words = []
    for group in groups:
        text = "".join(tokens[i] for i in group).removeprefix(_WORD_START)
        # Nothing follows the blank: it began no word.
        if text:
            logprob = sum(token_logprobs[i] for i in group) / len(group)
            end = round(timestamps[group[-1]] + _LONGEST_TOKEN_S, 3)
            if group[-1] + 1 < len(tokens):
                end = min(end, timestamps[group[-1] + 1])
            words.append(Word(text, timestamps[group[0]], end, math.exp(logprob)))
    return tuple(words)
