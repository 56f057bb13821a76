"""`snowmelt prepare`: a corpus becomes audio at the model's rate and lists of cuts."""

import argparse
import sys
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "prepare", help="prepare a corpus", description="Prepare a corpus for training."
    )
    parser.add_argument("corpus", choices=("digits", "an4"), help="corpus to prepare")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="where it goes (default: data)"
    )
    parser.add_argument(
        "--archive", type=Path, help="the corpus's archive (default: <data-dir>/<corpus>.tar)"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the corpus; a corpus that is there already costs nothing."""
    from snowmelt.data.corpora import get_corpus

    folder = args.data_dir / args.corpus
    get_corpus(args.corpus, folder).prepare(args.archive)
    print(f"{args.corpus} is prepared in {folder}", file=sys.stderr)
    return 0
