"""Which token sequences are the phrases that a user expects to hear?

    SNOWMELT
    JOHN DOE :3.5

One phrase a line, in plain words; behind a colon the bonus of each of its tokens, where it differs
from the rest. Letters are taken as typed; in capitals or small, if the vocabulary has only these.

Invariant: every phrase becomes tokens, or an error that names it; none is left out.

Source: sherpa-onnx, the format of its --hotwords-file.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from snowmelt.core.errors import ConfigError
from snowmelt.search.context_graph import ContextGraph, build_context_graph
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["Hotword", "hotword_graph", "parse_hotwords"]

_LINE: Final = re.compile(r"(?P<phrase>[^:]*?)(?:\s*:(?P<score>\S*))?\s*")


@dataclass(frozen=True)
class Hotword:
    """An expected phrase.

    Attributes:
        text: its words, as the model writes them.
        token_ids: its tokens.
        score: bonus of each token.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float


def parse_hotwords(
    text: str, tokenizer: Tokenizer, *, score: float, name: str
) -> tuple[Hotword, ...]:
    """Read phrases.

    Args:
        text: lines as above; empty ones are passed over.
        tokenizer: the model's vocabulary.
        score: bonus of each token where a line says nothing.
        name: what to call the text in messages.

    Raises:
        ConfigError: a line is no phrase with a score, the vocabulary cannot spell a phrase, or
            there is none.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        match = _LINE.fullmatch(line)
        words = match["phrase"].split() if match else []
        if match is None or not words:
            raise ConfigError(f"{where} is {line.strip()!r}", "write PHRASE or PHRASE :SCORE")
        own_score = score if match["score"] is None else _score(match["score"], where)
        found.append(_spelled(" ".join(words), tokenizer, own_score, where))
    if not found:
        raise ConfigError(f"{name} holds no phrase", "write one a line")
    return tuple(found)


def hotword_graph(hotwords: Sequence[Hotword], *, icefall_compat: bool = False) -> ContextGraph:
    """The graph that the searches take."""
    return build_context_graph(
        [hotword.token_ids for hotword in hotwords],
        [hotword.score for hotword in hotwords],
        rule="icefall" if icefall_compat else "longest",
    )


def _score(word: str, where: str) -> float:
    try:
        score = float(word)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ConfigError(f"{where} has the score {word!r}", "write a number, as in PHRASE :2.0")
    return score


def _spelled(text: str, tokenizer: Tokenizer, score: float, where: str) -> Hotword:
    for spelling in (text, text.upper(), text.lower()):
        ids = tokenizer.encode(spelling)
        if ids and tokenizer.unk_id not in ids:
            return Hotword(spelling, tuple(ids), score)
    raise ConfigError(
        f"{where}: the model's vocabulary cannot spell {text!r}",
        "write it in the words and letters of its training texts",
    )
