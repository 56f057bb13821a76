"""`snowmelt frontier`: word error rate over latency, of chunk lengths, methods and models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import positive_ints
from snowmelt.cli.recognition_options import STREAMING_DEFAULTS
from snowmelt.cli.scoring import add_scoring_options, planned_runs, scored_runs
from snowmelt.cli.streaming_decode import add_num_streams, streaming_recognise
from snowmelt.cli.table import aligned
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snowmelt.cli.scoring import Run

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "frontier",
        help="word error rate over latency, as a picture",
        description="Recognise test sets chunk by chunk with all combinations of chunk lengths, "
        "decoding methods and experiments, and draw word error rates over the delay of words. What "
        "was measured before, here or with streaming-decode --latency, is not measured again.",
        # Two options of streaming-decode take lists here.
        conflict_handler="resolve",
    )
    add_scoring_options(parser, STREAMING_DEFAULTS)
    add_num_streams(parser)
    parser.add_argument(
        "--exp-dir",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of experiments, for example with several --delay-penalty",
    )
    parser.add_argument(
        "--decode-chunk-len",
        type=positive_ints,
        metavar="FRAMES",
        help="chunks in feature frames of 10 ms, as in 16,32,64 (default: as trained)",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("frontier"),
        metavar="DIR",
        help="for frontier.png, frontier.html and frontier.json (default: frontier)",
    )
    parser.add_argument("--force", action="store_true", help="measure again")
    parser.epilog = None


def run(args: argparse.Namespace) -> int:
    """Measure, draw, and print the table."""
    from snowmelt.core.files import make_folder
    from snowmelt.evaluate.frontier import Point, frontier_table, write_frontier
    from snowmelt.evaluate.partials import PartialLog
    from snowmelt.presets.frames import FEATURE_FRAME_S

    plans = _plans(args)
    make_folder(args.output_dir)  # before hours of measuring
    names = _names([runs[0] for runs in plans])
    partials = PartialLog()
    points = []
    for runs in plans:
        for one, scores in scored_runs(
            runs,
            streaming_recognise(args.num_decode_streams, partials=partials),
            is_streaming=True,
            partials=partials,
            reuse=not args.force,
        ):
            for score in scores:
                assert score.latency is not None
                points.append(
                    Point(
                        test_set=score.test_set,
                        model=names[one.args.exp_dir],
                        search=_search_name(one, runs),
                        decode_chunk_len=round(score.latency.chunk_s / FEATURE_FRAME_S),
                        stats=score.stats,
                        latency=score.latency,
                    )
                )
    write_frontier(points, args.output_dir)
    print(aligned(frontier_table(points)))
    return 0


def _plans(args: argparse.Namespace) -> "list[list[Run]]":
    """The runs of every experiment and chunk length; what is wrong with one is found here."""
    from dataclasses import replace

    for name, values in (("--epoch", args.epoch), ("--avg", args.avg)):
        if values and len(values) > 1:
            raise ConfigError(
                f"{name} takes one number here", "compare checkpoints with streaming-decode"
            )
    plans = []
    for exp_dir in dict.fromkeys(args.exp_dir):
        for chunk_len in args.decode_chunk_len or [None]:
            own = {**vars(args), "exp_dir": exp_dir, "decode_chunk_len": chunk_len}
            runs = planned_runs(argparse.Namespace(**own))
            if chunk_len is not None:
                replace(runs[0].config.model, decode_chunk_len=chunk_len)  # does it fit the model?
            plans.append(runs)
    return plans


def _names(runs: "Sequence[Run]") -> dict[Path, str]:
    """What the experiments are called: their folders' names, and what they were told of delay."""
    folders = {run.args.exp_dir: run.config.train.delay_penalty for run in runs}
    last = [folder.absolute().name for folder in folders]
    names = {}
    for folder, penalty in folders.items():
        name = folder.absolute().name
        name = str(folder) if last.count(name) > 1 else name
        names[folder] = f"{name}, delay penalty {penalty:g}" if penalty else name
    return names


def _search_name(run: "Run", runs: "Sequence[Run]") -> str:
    """The method, and scales of its language models where they vary."""
    method = run.search.decoding_method
    same = [other.search for other in runs if other.search.decoding_method == method]
    scales = [
        f"{name.replace('_', '-')} {getattr(run.search, name):g}"
        for name in ("lm_scale", "ngram_lm_scale")
        if len({getattr(search, name) for search in same}) > 1
    ]
    return ", ".join([method, *scales])
