"""How are words printed: one whole line an input, or growing while they are heard?

Invariant: standard output holds results only, standard error what went wrong; a failed input leaves
nothing on standard output (live: nothing but the words printed before it failed).
"""

import json
import sys
from typing import TYPE_CHECKING, Final, Literal

from snowmelt.core.errors import UserError

if TYPE_CHECKING:
    from snowmelt.runtime.recognizer import RecognitionResult
    from snowmelt.runtime.scheduler import AudioSource, Outcome

__all__ = ["Format", "LivePrinter", "OrderedPrinter"]

# A name that holds these would fill two columns or two lines.
_ESCAPES: Final = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})

Format = Literal["text", "tsv", "json"]


class OrderedPrinter:
    """Prints results in the order of the inputs, each as soon as those before it are known."""

    def __init__(self, line_format: Format) -> None:
        self._format: Final = line_format
        self._waiting: dict[int, Outcome] = {}
        self._next = 0

    def outcome(self, outcome: "Outcome") -> None:
        """Print it now, or when those before it have come."""
        self._waiting[outcome.index] = outcome
        while self._next in self._waiting:
            ready = self._waiting.pop(self._next)
            self._next += 1
            if ready.error is not None:
                _print_error(ready.name, ready.error)
            elif ready.result is not None:
                print(_line(self._format, ready.name, ready.result), flush=True)


class LivePrinter:
    """Prints words while they are heard; one input at a time.

    Text grows on its line, by what can no longer change; tsv and json give a line whenever the
    result has changed.
    """

    def __init__(self, line_format: Format) -> None:
        self._format: Final = line_format
        self._shown = ""

    def partial(self, source: "AudioSource", result: "RecognitionResult") -> None:
        """The result so far of the input that is being heard."""
        if self._format == "text":
            self._grow(result.stable_text)
        elif result.text != self._shown:
            print(_line(self._format, source.name, result), flush=True)
            self._shown = result.text

    def outcome(self, outcome: "Outcome") -> None:
        """The input has ended: complete its line."""
        if outcome.error is not None:
            if self._format == "text" and self._shown:
                print(flush=True)
            _print_error(outcome.name, outcome.error)
        elif outcome.result is not None and self._format == "text":
            self._grow(outcome.result.text)
            print(flush=True)
        elif outcome.result is not None:
            print(_line(self._format, outcome.name, outcome.result), flush=True)
        self._shown = ""

    def _grow(self, text: str) -> None:
        if text == self._shown:
            return
        # Stable text only ever grows; should a tokenizer spell earlier tokens anew, begin anew.
        start = "" if text.startswith(self._shown) else "\n"
        print(start + (text if start else text[len(self._shown) :]), end="", flush=True)
        self._shown = text


def _line(line_format: Format, name: str, result: "RecognitionResult") -> str:
    if line_format == "text":
        return result.text
    if line_format == "tsv":
        return f"{name.translate(_ESCAPES)}\t{result.text}"
    fields = {
        "path": name,
        "text": result.text,
        "words": [
            {
                "word": w.text,
                "start": w.start,
                "end": w.end,
                "confidence": round(w.confidence, 4),
            }
            for w in result.words
        ],
        "tokens": result.tokens,
        "timestamps": result.timestamps,
        "token_logprobs": [round(value, 6) for value in result.token_logprobs],
        "is_final": result.is_final,
    }
    return json.dumps(fields, ensure_ascii=False)


def _print_error(name: str, error: UserError) -> None:
    # Messages about a file name it themselves; once is enough.
    message = str(error).removeprefix(f"{name} ")
    print(f"{name.translate(_ESCAPES)}: {message}", file=sys.stderr, flush=True)
