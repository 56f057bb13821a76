"""How are results written for other programs: as CTM lines, as JSON?

    file channel start duration word confidence      CTM, as NIST's sclite reads it

Invariant: pure functions; times count from the start of the stream. A CTM line has six columns,
whatever the words and the names of files are.

Source: NIST, sctk, doc/infmts.htm (CTM).
"""

import math
from typing import Any, Final

from snowmelt.runtime.recognizer import RecognitionResult

__all__ = ["ctm_lines", "result_fields"]

# Sounds of several channels are mixed before they are recognised.
_CHANNEL: Final = "1"


def ctm_lines(name: str, result: RecognitionResult) -> list[str]:
    """A line a word, with seconds to three decimals.

    Args:
        name: what the sound is called; blanks in it become `_`, as blanks separate columns.
        result: what was recognised in it.
    """
    column = "_".join(name.split()) or "_"
    lines = []
    for word in result.words:
        start, end = (round(result.start_time + time, 3) for time in (word.start, word.end))
        lines.append(
            f"{column} {_CHANNEL} {start:.3f} {end - start:.3f} {word.text} {word.confidence:.4f}"
        )
    return lines


def result_fields(result: RecognitionResult) -> dict[str, Any]:
    """What JSON says of a result: text, words and tokens with their times, and how sure it is."""
    return {
        "text": result.text,
        "confidence": round(result.confidence, 4),
        "log_prob": round(result.log_prob, 4),
        "words": [
            {
                "word": word.text,
                "start": word.start,
                "end": word.end,
                "confidence": round(word.confidence, 4),
            }
            for word in result.words
        ],
        "tokens": list(result.tokens),
        "timestamps": list(result.timestamps),
        "token_ends": list(result.token_ends),
        "token_logprobs": [round(value, 6) for value in result.token_logprobs],
        "token_confidences": [round(math.exp(value), 4) for value in result.token_logprobs],
    }
