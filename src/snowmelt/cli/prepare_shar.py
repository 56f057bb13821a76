"""`snowmelt prepare shar`: a prepared corpus becomes shards that are read from beginning to end."""

import argparse
import sys

from snowmelt.cli.arguments import positive_int
from snowmelt.cli.corpus_options import add_corpus_options, chosen_corpus, chosen_splits
from snowmelt.cli.worker_options import add_worker_options, chosen_workers
from snowmelt.core.errors import ConfigError

__all__ = ["add_shar", "run_shar"]


def add_shar(
    corpora: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the subcommand and its options."""
    parser = corpora.add_parser(
        "shar",
        help="write a corpus in shards",
        description="Write a prepared corpus in shards of lhotse's Shar format: few large files, "
        "for disks and networks that are slow in finding small ones. They are a corpus of their "
        "own; what they were made of is not needed any more.",
    )
    add_corpus_options(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="the new corpus's name (default: CORPUS-shar)"
    )
    parser.add_argument(
        "--content",
        choices=("sound", "features"),
        default="sound",
        help="what is written: sound in 16 bits, or features in half precision (default: sound)",
    )
    parser.add_argument(
        "--shard-size",
        type=positive_int,
        default=500,
        metavar="N",
        help="utterances in a shard (default: 500)",
    )
    parser.add_argument("--force", action="store_true", help="write everything again")
    add_worker_options(parser)
    return parser


def run_shar(args: argparse.Namespace) -> int:
    """Write the shards; what is there already costs nothing."""
    from snowmelt.core.log import setup_logging
    from snowmelt.data.corpora import corpus_names, manifest_corpus_names
    from snowmelt.prepare.pipeline import Pipeline
    from snowmelt.prepare.shar import SharCorpus, shar_steps

    name = args.name or f"{args.prepared}-shar"
    if name in (args.prepared, *corpus_names(), *manifest_corpus_names()) or "/" in name:
        raise ConfigError(f"{name!r} is no name of a new corpus", "give it another --name")
    workers = chosen_workers(args)
    setup_logging()
    corpus = chosen_corpus(args)
    if corpus.varies_with_epoch and "train" in args.splits:
        raise ConfigError(
            f"{args.prepared} composes its training utterances anew for every epoch",
            "shards of its other splits can be written: --splits dev test",
        )
    splits = {split: list(cuts) for split, cuts in chosen_splits(args, corpus).items()}
    shar = SharCorpus(name, splits, args.content, args.shard_size)
    with workers:
        steps = shar_steps(shar, args.data_dir, workers)
        made = Pipeline(name, args.data_dir, steps).run(1, 1, force=args.force)
    print(f"{name} is prepared in {args.data_dir / name}: {'; '.join(made)}", file=sys.stderr)
    return 0
