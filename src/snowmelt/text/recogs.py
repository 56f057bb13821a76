"""Which words does a recogs file hold? The counterpart of what `text/wer.py` writes.

Two lines an utterance, words as a Python list; lines of other names (the original may add
timestamp_ref and timestamp_hyp) are passed over.

Invariant: a file is read whole or refused with the line that is wrong; nothing in it is run.

Source: icefall, icefall/utils.py, store_transcripts.
"""

import ast
import re
from pathlib import Path
from typing import Final

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.text.wer import Result

__all__ = ["read_recogs"]

_LINE: Final = re.compile(r"(.*):\t(\w+)=(\[.*\])")


def read_recogs(path: Path) -> list[Result]:
    """Utterance id, words said, words recognised; in the order of the file.

    Raises:
        DataError: it is no recogs file, or says something twice or by halves.
    """
    require_file(path, "the result", error=DataError)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise _refusal(path, "it is not UTF-8 text") from None
    said: dict[str, list[str]] = {}
    heard: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise _refusal(path, f"line {number} is {line[:60]!r}")
        utterance_id, name, words = match.groups()
        side = {"ref": said, "hyp": heard}.get(name)
        if side is None:
            continue
        if utterance_id in side:
            raise _refusal(path, f"line {number} has {name} of {utterance_id} for the second time")
        side[utterance_id] = _words(path, number, words)
    for utterance_id in (*said, *heard):
        if utterance_id not in said or utterance_id not in heard:
            raise _refusal(path, f"{utterance_id} has not both ref and hyp")
    return [(utterance_id, words, heard[utterance_id]) for utterance_id, words in said.items()]


def _words(path: Path, number: int, text: str) -> list[str]:
    try:
        words = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _refusal(path, f"line {number} holds no list of words")
    return words


def _refusal(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is no recogs file: {reason}",
        "give recogs-*.txt or results-*.json of snowmelt decode, or recogs-*.txt of icefall",
    )
