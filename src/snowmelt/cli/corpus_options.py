"""Which prepared corpus is looked at, and which parts of it? The options, and what they name.

Invariant: nothing is read before it is asked for.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhotse import CutSet

    from snowmelt.data.corpora import Corpus

__all__ = ["add_corpus_options", "chosen_corpus", "chosen_splits"]


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add the corpus, its parts and its splits."""
    parser.add_argument("prepared", metavar="CORPUS", help="a prepared corpus, for example an4")
    parser.add_argument(
        "--manifest-dir",
        type=Path,
        default=Path("data/fbank"),
        metavar="DIR",
        help="manifests of LibriSpeech and GigaSpeech (default: data/fbank)",
    )
    for name in ("train", "dev", "test"):
        parser.add_argument(
            f"--{name}-parts",
            type=lambda text: tuple(text.replace(",", " ").split()),
            default=(),
            metavar="NAME,…",
            help=f"parts of the corpus that are its {name} set",
        )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("train", "dev", "test"),
        default=["train", "dev", "test"],
        help="which splits are looked at (default: all)",
    )


def chosen_corpus(args: argparse.Namespace) -> "Corpus":
    """The corpus that was named.

    Raises:
        DataError: there is none of this name.
    """
    from snowmelt.data.corpora import PartSelection, open_corpus

    selection = PartSelection(
        train_parts=args.train_parts, dev_parts=args.dev_parts, test_parts=args.test_parts
    )
    return open_corpus(args.prepared, args.data_dir, args.manifest_dir, selection=selection)


def chosen_splits(args: argparse.Namespace, corpus: "Corpus") -> "dict[str, CutSet]":
    """Train first: the others must have nothing in common with it."""
    wanted = [name for name in ("train", "dev", "test") if name in args.splits]
    # Not everybody has a test set.
    return {name: corpus.cuts(name) for name in wanted if name != "test" or corpus.test_sets}
