"""`snowmelt streaming-decode`: word error rates of a model that hears chunk by chunk."""

import argparse

from snowmelt.cli.recognition_options import (
    add_corpus_options,
    add_model_options,
    add_search_options,
    load,
    positive_int,
    weights_choice,
)

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "streaming-decode",
        help="word error rates of a model, chunk by chunk",
        description="Recognise test sets as streams, chunk by chunk, and write the result files "
        "into <exp-dir>/streaming/greedy_search/.",
    )
    add_corpus_options(parser)
    add_model_options(parser)
    add_search_options(parser)
    parser.add_argument(
        "--num-decode-streams",
        type=positive_int,
        default=2000,
        metavar="N",
        help="most utterances decoded side by side (default: 2000)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the test sets; one line of result a set on standard output."""
    from snowmelt.evaluate.report import DecodingSettings
    from snowmelt.evaluate.score import score_splits
    from snowmelt.evaluate.streaming import streaming_decode
    from snowmelt.runtime.recognizer import OnlineRecognizer

    weights = weights_choice(args).resolved(args.exp_dir)
    model = load(args.exp_dir, weights, args)
    recognizer = OnlineRecognizer(
        model, max_sym_per_frame=args.max_sym_per_frame, blank_penalty=args.blank_penalty
    )
    lines = score_splits(
        lambda utterances: streaming_decode(
            recognizer, utterances, num_decode_streams=args.num_decode_streams
        ),
        DecodingSettings(
            weights=weights,
            decode_chunk_len=model.backend.decode_chunk_len,
            context_size=model.backend.scorer.context_size,
            decoding_method=args.decoding_method,
            max_sym_per_frame=args.max_sym_per_frame,
            blank_penalty=args.blank_penalty,
            is_streaming=True,
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
