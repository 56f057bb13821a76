"""Which options do decode, streaming-decode and transcribe share?

Names and meanings are the original's (icefall's decode.py and streaming_decode.py).
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import add_bool, finite_float, natural_int, positive_int

if TYPE_CHECKING:
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.load import WeightsChoice
    from snowmelt.search.methods import SearchOptions

__all__ = [
    "add_model_options",
    "add_search_options",
    "load",
    "search_options",
    "weights_choice",
]


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which weights, chunk length and device."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--epoch", type=positive_int, metavar="N", help="last epoch averaged (default: the newest)"
    )
    group.add_argument(
        "--iter",
        type=natural_int,
        default=0,
        metavar="N",
        help="above 0: average checkpoint-N.pt and those before it instead of epochs",
    )
    group.add_argument(
        "--avg",
        type=positive_int,
        metavar="N",
        help="epochs or checkpoints averaged (default: 9, or as many as there are)",
    )
    add_bool(
        group,
        "--use-averaged-model",
        default=True,
        help="average over all batches of these epochs with the running means kept in training",
    )
    group.add_argument(
        "--head",
        default="main",
        metavar="NAME",
        help="of a training on several corpora: whose decoder and joiner (default: main)",
    )
    group.add_argument(
        "--decode-chunk-len",
        type=positive_int,
        metavar="FRAMES",
        help="chunk in feature frames of 10 ms (default: as trained)",
    )
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    group.add_argument(
        "--num-threads",
        type=positive_int,
        default=1,
        metavar="N",
        help="CPU threads of one calculation, at most one a core (default: 1)",
    )


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """How tokens are found."""
    group = parser.add_argument_group("search")
    group.add_argument(
        "--decoding-method",
        default="greedy_search",
        metavar="NAME",
        help="the search (default: greedy_search)",
    )
    group.add_argument(
        "--max-sym-per-frame",
        type=positive_int,
        default=1,
        metavar="N",
        help="most tokens that one encoder frame of 40 ms may emit (default: 1)",
    )
    group.add_argument(
        "--blank-penalty",
        type=finite_float,
        default=0.0,
        metavar="X",
        help="taken from the score of blank: fewer deletions, more insertions (default: 0)",
    )


def search_options(args: argparse.Namespace) -> "SearchOptions":
    """The search that the options name."""
    from snowmelt.search.methods import SearchOptions

    return SearchOptions(
        decoding_method=args.decoding_method,
        max_sym_per_frame=args.max_sym_per_frame,
        blank_penalty=args.blank_penalty,
    )


def weights_choice(args: argparse.Namespace) -> "WeightsChoice":
    """The weights that the options name."""
    from snowmelt.runtime.load import WeightsChoice

    return WeightsChoice(
        epoch=args.epoch,
        iteration=args.iter,
        avg=args.avg,
        use_averaged_model=args.use_averaged_model,
    )


def load(path: Path, weights: "WeightsChoice | None", args: argparse.Namespace) -> "SpeechModel":
    """Load the model as the options say, and set the number of threads."""
    import torch

    from snowmelt.runtime.load import load_model

    torch.set_num_threads(min(args.num_threads, os.cpu_count() or 1))
    return load_model(
        path,
        weights=weights,
        head=args.head,
        decode_chunk_len=args.decode_chunk_len,
        device=args.device,
    )
