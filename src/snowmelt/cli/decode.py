"""`snowmelt decode`: word error rates of a model, whole utterances at a time."""

import argparse

from snowmelt.cli.recognition_options import (
    add_corpus_options,
    add_model_options,
    add_search_options,
    load,
    weights_choice,
)

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "decode",
        help="word error rates of a model (simulated streaming)",
        description="Recognise test sets, whole utterances at a time with the chunk mask of "
        "streaming, and write the result files into <exp-dir>/greedy_search/.",
    )
    add_corpus_options(parser)
    add_model_options(parser)
    add_search_options(parser)
    parser.add_argument(
        "--max-duration",
        type=float,
        default=200.0,
        metavar="SECONDS",
        help="sound in a batch, padding included (default: 200)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the test sets; one line of result a set on standard output."""
    from snowmelt.evaluate.decode import decode
    from snowmelt.evaluate.report import DecodingSettings
    from snowmelt.evaluate.score import score_splits
    from snowmelt.runtime.recognizer import OfflineRecognizer

    weights = weights_choice(args).resolved(args.exp_dir)
    model = load(args.exp_dir, weights, args)
    recognizer = OfflineRecognizer(
        model, max_sym_per_frame=args.max_sym_per_frame, blank_penalty=args.blank_penalty
    )
    lines = score_splits(
        lambda utterances: decode(recognizer, utterances, max_duration=args.max_duration),
        DecodingSettings(
            weights=weights,
            decode_chunk_len=model.backend.decode_chunk_len,
            context_size=model.backend.scorer.context_size,
            decoding_method=args.decoding_method,
            max_sym_per_frame=args.max_sym_per_frame,
            blank_penalty=args.blank_penalty,
        ),
        weights=model.weights,
        exp_dir=args.exp_dir,
        corpus=args.corpus,
        data_dir=args.data_dir,
        splits=args.splits,
    )
    for line in lines:
        print(line, flush=True)
    return 0
