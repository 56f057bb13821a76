"""`snowmelt transcribe`: sound files, folders, standard input or the microphone become words.

Results go to standard output, one line an input, in the order of the inputs; what is wrong with an
input is one line on standard error, and the other inputs are not touched by it.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snowmelt.cli.arguments import positive_int
from snowmelt.cli.model_files import add_model_files, check_sample_rate, chosen_model
from snowmelt.cli.recognition_options import (
    add_model_options,
    add_search_options,
    load,
    load_search,
    search_options,
    weights_choice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snowmelt.audio.samples import Float32Array
    from snowmelt.runtime.scheduler import AudioSource

__all__ = ["add_parser", "run"]

_DONE: Final = 0
_BAD_INPUT: Final = 2

# Read and decoded at once; a stream's memory is a few times this.
_BLOCK_S: Final = 10.0

# Measured with 70 M parameters, one stream, one thread: a quarter of the time of one chunk at once.
_MAX_CHUNKS: Final = 8

# What is taken from a folder; a file that is named may have any suffix.
_SOUND_SUFFIXES: Final = frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".sph", ".wav"}
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "transcribe",
        help="words of sound files or the microphone",
        description="Print the words of sound files of any format, rate and length.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE",
        help="sound file, folder of sound files, or - for standard input",
    )
    parser.add_argument(
        "--microphone", action="store_true", help="listen until Ctrl-C (implies --live)"
    )
    parser.add_argument(
        "--format",
        choices=("text", "tsv", "json", "ctm", "srt", "vtt"),
        default="text",
        help="words; path, tab, words; one JSON object with tokens and times; a CTM line a word; "
        "subtitles of one file (default: text)",
    )
    parser.add_argument(
        "--live", action="store_true", help="print words while the sound is being heard"
    )
    parser.add_argument(
        "--num-decode-streams",
        type=positive_int,
        default=16,
        metavar="N",
        help="most files recognised side by side (default: 16)",
    )
    add_model_files(parser)
    add_model_options(parser)
    add_search_options(parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe all inputs; exit code 2 if one of them could not be."""
    from snowmelt.cli.transcript import LivePrinter, OrderedPrinter, check_format
    from snowmelt.core.errors import ConfigError
    from snowmelt.runtime.load import WeightsChoice, default_search
    from snowmelt.runtime.recognizer import OnlineRecognizer
    from snowmelt.runtime.scheduler import recognize

    if not args.inputs and not args.microphone:
        raise ConfigError("there is nothing to transcribe", "give sound files or --microphone")
    if args.inputs and args.microphone:
        raise ConfigError("--microphone and files exclude each other", "run the command twice")
    path = chosen_model(args)
    chosen = weights_choice(args)
    if isinstance(path, Path) and path.is_file() and chosen != WeightsChoice():
        raise ConfigError(
            f"{path} is one file: --epoch, --iter, --avg and --use-averaged-model choose "
            "among the files of a folder",
            f"--model {path.parent}",
        )
    sources = _microphone() if args.microphone else _sources(args.inputs)
    is_live = args.live or args.microphone
    check_format(args.format, len(sources), is_live=is_live)
    options = search_options(args, default_search(path))
    model = load(path, None if chosen == WeightsChoice() else chosen, args)
    check_sample_rate(args, model)
    search = load_search(args, options, model.tokenizer)
    recognizer = OnlineRecognizer(
        model,
        search=search.method,
        word_table=search.word_table,
        max_chunks=1 if is_live else _MAX_CHUNKS,
    )
    live = LivePrinter(args.format) if is_live else None
    printer = live or OrderedPrinter(args.format)
    exit_code = _DONE
    for outcome in recognize(
        recognizer,
        sources,
        # Words of several inputs cannot grow on the screen at the same time.
        max_streams=1 if live else args.num_decode_streams,
        on_partial=live.partial if live else None,
    ):
        if outcome.error is not None:
            exit_code = _BAD_INPUT
        printer.outcome(outcome)
    return exit_code


def _sources(inputs: list[str]) -> "list[AudioSource]":
    sources = []
    for name in inputs:
        path = Path(name)
        if name not in ("", "-") and path.is_dir():
            sources += [_file(str(inside)) for inside in _sound_files(path)] or [_empty(name)]
        else:
            sources.append(_file(name))
    return sources


def _sound_files(folder: Path) -> list[Path]:
    files = (p for p in folder.rglob("*") if p.suffix.lower() in _SOUND_SUFFIXES and p.is_file())
    return sorted(files)


def _file(name: str) -> "AudioSource":
    from snowmelt.audio.read import iter_audio
    from snowmelt.runtime.scheduler import AudioSource

    def open_file() -> "tuple[int, Iterator[Float32Array]]":
        blocks = iter_audio(name, block_s=_BLOCK_S)
        return blocks.sample_rate, blocks

    return AudioSource(name, open_file)


def _empty(folder: str) -> "AudioSource":
    from snowmelt.core.errors import AudioError
    from snowmelt.runtime.scheduler import AudioSource

    def fail() -> "tuple[int, Iterator[Float32Array]]":
        raise AudioError("the folder holds no sound files", "give one that does")

    return AudioSource(folder, fail)


def _microphone() -> "list[AudioSource]":
    from snowmelt.cli.microphone import open_microphone
    from snowmelt.runtime.scheduler import AudioSource

    return [AudioSource("microphone", open_microphone)]
