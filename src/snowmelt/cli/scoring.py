"""What do decode and streaming-decode have in common? Test sets in, a line of result each out.

Names and meanings of the options are the original's (icefall's decode.py and streaming_decode.py).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snowmelt.cli.recognition_options import (
    add_model_options,
    add_search_options,
    load,
    weights_choice,
)

if TYPE_CHECKING:
    from snowmelt.evaluate.utterances import Hypothesis, Utterance
    from snowmelt.runtime.backend import SpeechModel

__all__ = ["add_scoring_options", "print_scores"]


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Which experiment is tested on what, and how it recognises."""
    _add_corpus_options(parser)
    add_model_options(parser)
    add_search_options(parser)


def print_scores(
    args: argparse.Namespace,
    recognise: "Callable[[SpeechModel, Sequence[Utterance]], list[Hypothesis]]",
    *,
    is_streaming: bool,
) -> int:
    """Score the test sets; one line of result a set on standard output.

    Args:
        args: values of `add_scoring_options`.
        recognise: utterances in, one row each out, sorted by id.
        is_streaming: whether it recognises in real chunks, for the names of the files.
    """
    from snowmelt.checkpoint.experiment import load_experiment
    from snowmelt.evaluate.report import DecodingSettings
    from snowmelt.evaluate.score import score_splits

    config, _ = load_experiment(args.exp_dir)
    weights = weights_choice(args).resolved(args.exp_dir)
    model = load(args.exp_dir, weights, args)
    lines = score_splits(
        lambda utterances: recognise(model, utterances),
        DecodingSettings(
            weights=weights,
            decode_chunk_len=model.backend.decode_chunk_len,
            context_size=model.backend.scorer.context_size,
            decoding_method=args.decoding_method,
            max_sym_per_frame=args.max_sym_per_frame,
            blank_penalty=args.blank_penalty,
            is_streaming=is_streaming,
            encoder=config.model.encoder,
            head=model.head,
        ),
        weights=model.weights,
        exp_dir=args.exp_dir,
        # Words of one corpus are not found with the decoder of another.
        corpus=args.corpus or config.data.part_of_head(args.head).corpus,
        data_dir=args.data_dir,
        manifest_dir=args.manifest_dir,
        splits=args.splits,
    )
    for line in lines:
        print(line, flush=True)
    return 0


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("test sets")
    group.add_argument(
        "--exp-dir", type=Path, required=True, metavar="DIR", help="folder of the experiment"
    )
    group.add_argument("--corpus", metavar="NAME", help="(default: the one trained on)")
    group.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="prepared corpora (default: data)"
    )
    group.add_argument(
        "--manifest-dir",
        type=Path,
        default=Path("data/fbank"),
        metavar="DIR",
        help="manifests of corpora that are prepared elsewhere (default: data/fbank)",
    )
    group.add_argument(
        "--splits",
        nargs="+",
        choices=("test", "dev", "train"),
        default=["test", "dev"],
        metavar="SPLIT",
        help="test, dev, train (default: test dev)",
    )
