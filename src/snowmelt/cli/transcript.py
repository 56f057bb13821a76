"""How are words printed: whole, input after input, or growing while they are heard?

Invariant: standard output holds results only, standard error what went wrong; a failed input leaves
nothing on standard output (live: nothing but the words printed before it failed).
"""

import json
import sys
from typing import TYPE_CHECKING, Final, Literal

from snowmelt.core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from snowmelt.runtime.recognizer import RecognitionResult
    from snowmelt.runtime.scheduler import AudioSource, Outcome

__all__ = ["Format", "LivePrinter", "OrderedPrinter", "check_format"]

# A name that holds these would fill two columns or two lines.
_ESCAPES: Final = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})

Format = Literal["text", "tsv", "json", "ctm", "srt", "vtt"]

# Those that can say what is known so far.
_LIVE_FORMATS: Final = ("text", "tsv", "json")

# Those whose text is one file for one sound.
_SUBTITLE_FORMATS: Final = ("srt", "vtt")


def check_format(line_format: Format, num_inputs: int, *, is_live: bool) -> None:
    """Can results be printed so?

    Raises:
        ConfigError: the format needs the end of the sound, or a file for every input.
    """
    if is_live and line_format not in _LIVE_FORMATS:
        raise ConfigError(
            f"--format {line_format} needs the end of the sound, --live does not wait for it",
            f"choose {', '.join(_LIVE_FORMATS)}, or transcribe a recording",
        )
    if num_inputs > 1 and line_format in _SUBTITLE_FORMATS:
        raise ConfigError(
            f"--format {line_format} makes one file of subtitles, but there are {num_inputs} "
            "inputs",
            "run the command once for each",
        )


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
                print(_formatted(self._format, ready.name, ready.result), end="", flush=True)


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
            print(_formatted(self._format, source.name, result), end="", flush=True)
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
            print(_formatted(self._format, outcome.name, outcome.result), end="", flush=True)
        self._shown = ""

    def _grow(self, text: str) -> None:
        if text == self._shown:
            return
        # Stable text only ever grows; should a tokenizer spell earlier tokens anew, begin anew.
        start = "" if text.startswith(self._shown) else "\n"
        print(start + (text if start else text[len(self._shown) :]), end="", flush=True)
        self._shown = text


def _formatted(line_format: Format, name: str, result: "RecognitionResult") -> str:
    """Whole lines; none where the format has nothing to say."""
    if line_format == "text":
        return f"{result.text}\n"
    if line_format == "tsv":
        return f"{name.translate(_ESCAPES)}\t{result.text}\n"
    from snowmelt.runtime.formats import ctm_lines, result_fields
    from snowmelt.runtime.subtitles import cues, srt, vtt

    if line_format == "ctm":
        return "".join(f"{line}\n" for line in ctm_lines(name, result))
    if line_format in ("srt", "vtt"):
        shown = cues(result.words, result.start_time)
        return srt(shown) if line_format == "srt" else vtt(shown)
    fields = {"path": name, **result_fields(result), "is_final": result.is_final}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _print_error(name: str, error: UserError) -> None:
    # Messages about a file name it themselves; once is enough.
    message = str(error).removeprefix(f"{name} ")
    print(f"{name.translate(_ESCAPES)}: {message}", file=sys.stderr, flush=True)
