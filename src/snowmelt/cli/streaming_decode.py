"""`snowmelt streaming-decode`: word error rates of a model that hears chunk by chunk."""

import argparse
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import add_bool, positive_int
from snowmelt.cli.recognition_options import STREAMING_DEFAULTS
from snowmelt.cli.scoring import Recognise, add_scoring_options, print_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snowmelt.cli.recognition_options import LoadedSearch
    from snowmelt.evaluate.partials import PartialLog
    from snowmelt.evaluate.utterances import Hypothesis, Utterance
    from snowmelt.runtime.backend import SpeechModel

__all__ = ["add_num_streams", "add_parser", "run", "streaming_recognise"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "streaming-decode",
        help="word error rates of a model, chunk by chunk",
        description="Recognise test sets as streams, chunk by chunk, and write the result files "
        "into <exp-dir>/streaming/<method>/.",
    )
    add_scoring_options(parser, STREAMING_DEFAULTS)
    add_num_streams(parser)
    add_bool(
        parser,
        "--latency",
        default=False,
        help="measure how late words come: printed, and kept as latency-*.json beside the results",
    )


def add_num_streams(parser: argparse.ArgumentParser) -> None:
    """How many utterances are heard at once."""
    parser.add_argument(
        "--num-decode-streams",
        type=positive_int,
        default=2000,
        metavar="N",
        help="most utterances decoded side by side (default: 2000)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the test sets; one line of result a set on standard output."""
    from snowmelt.evaluate.partials import PartialLog

    partials = PartialLog() if args.latency else None
    recognise = streaming_recognise(
        args.num_decode_streams, partials=partials, num_nbest=args.num_nbest
    )
    return print_scores(args, recognise, is_streaming=True, partials=partials)


def streaming_recognise(
    num_decode_streams: int, *, partials: "PartialLog | None", num_nbest: int = 1
) -> Recognise:
    """Model, search and utterances in, what was found out; `partials` is filled on the way."""
    from snowmelt.evaluate.streaming import streaming_decode
    from snowmelt.runtime.recognizer import OnlineRecognizer

    def recognise(
        model: "SpeechModel", search: "LoadedSearch", utterances: "Sequence[Utterance]"
    ) -> "list[Hypothesis]":
        recognizer = OnlineRecognizer(model, search=search.method, word_table=search.word_table)
        return streaming_decode(
            recognizer,
            utterances,
            num_decode_streams=num_decode_streams,
            num_nbest=None if search.is_rescored and partials is None else num_nbest,
            partials=partials,
        )

    return recognise
