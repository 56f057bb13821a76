"""`snowmelt decode`: word error rates of a model, whole utterances at a time."""

import argparse
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import positive_float
from snowmelt.cli.recognition_options import OFFLINE_DEFAULTS
from snowmelt.cli.scoring import add_scoring_options, print_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snowmelt.cli.recognition_options import LoadedSearch
    from snowmelt.evaluate.utterances import Hypothesis, Utterance
    from snowmelt.runtime.backend import SpeechModel

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "decode",
        help="word error rates of a model (simulated streaming)",
        description="Recognise test sets, whole utterances at a time as if in "
        "streaming, and write the result files into <exp-dir>/<method>/.",
    )
    add_scoring_options(parser, OFFLINE_DEFAULTS)
    parser.set_defaults(knows_reference=True)
    parser.add_argument(
        "--max-duration",
        type=positive_float,
        default=200.0,
        metavar="SECONDS",
        help="sound in a batch, padding included (default: 200)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the test sets; one line of result a set on standard output."""
    from snowmelt.evaluate.decode import decode
    from snowmelt.runtime.recognizer import OfflineRecognizer

    def recognise(
        model: "SpeechModel", search: "LoadedSearch", utterances: "Sequence[Utterance]"
    ) -> "list[Hypothesis]":
        recognizer = OfflineRecognizer(model, search=search.method, word_table=search.word_table)
        return decode(
            recognizer,
            utterances,
            max_duration=args.max_duration,
            num_nbest=None if search.is_rescored else args.num_nbest,
            oracle=search.oracle,
        )

    return print_scores(args, recognise, is_streaming=False)
