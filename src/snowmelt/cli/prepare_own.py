"""`snowmelt prepare own`: a list of transcripts and sound files become a corpus."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import add_bool, finite_float, positive_int
from snowmelt.cli.worker_options import add_worker_options, chosen_workers
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.prepare.own_vocabulary import VocabularySettings
    from snowmelt.prepare.transcripts import Transcribed

__all__ = ["add_own", "run_own"]

_LISTS = """\
--transcripts names a table (.tsv, .csv) or JSON lines (.jsonl) with path, text and, if you like,
speaker, start, end (seconds), split (train, dev, test), id. Then:

  snowmelt prepare own --transcripts recordings.tsv
  snowmelt train --preset zipformer-small --corpus own
"""


def add_own(
    corpora: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the subcommand and its options."""
    parser = corpora.add_parser(
        "own",
        help="your own recordings and their transcripts",
        description="Make a corpus of your own recordings; they are not changed.",
        epilog=_LISTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="own", help="the corpus's name (default: own)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--transcripts", type=Path, metavar="FILE", help="table or JSON lines")
    source.add_argument(
        "--kaldi-dir", type=Path, metavar="DIR", help="folder with wav.scp, text, utt2spk, segments"
    )
    source.add_argument("--cuts", type=Path, metavar="FILE", help="cuts of lhotse")
    source.add_argument(
        "--recordings", type=Path, metavar="FILE", help="recordings of lhotse, with --supervisions"
    )
    parser.add_argument("--supervisions", type=Path, metavar="FILE", help="supervisions of lhotse")
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        help="where the sound files are (default: where the list is; lhotse's and Kaldi's: here)",
    )
    parser.add_argument(
        "--normalise",
        choices=("none", "upper", "lower"),
        default="none",
        help="upper, lower: one letter case and no punctuation (default: none)",
    )
    parser.add_argument(
        "--dev-share",
        type=_share,
        default=0.05,
        metavar="X",
        help="of the speech, by speakers, if the list names no dev split (default: 0.05)",
    )
    parser.add_argument(
        "--test-share",
        type=_share,
        default=0.05,
        metavar="X",
        help="of the speech, by speakers, if the list names no test split (default: 0.05)",
    )
    parser.add_argument(
        "--tokenizer",
        choices=("bpe", "chars", "words"),
        help="make the vocabulary now, of the training transcripts; training takes it (default: "
        "training makes one)",
    )
    parser.add_argument(
        "--vocab-size", type=positive_int, metavar="N", help="BPE pieces (default: 500)"
    )
    parser.add_argument(
        "--character-coverage",
        type=finite_float,
        metavar="X",
        help="share of the characters that are BPE pieces, 0.98 to 1; for scripts of thousands of "
        "characters 0.9995 (default: 1)",
    )
    add_bool(
        parser,
        "--byte-fallback",
        default=False,
        help="spell the other characters in bytes, which are 256 of the BPE pieces",
    )
    add_bool(
        parser,
        "--skip-bad",
        default=False,
        help="leave out what cannot be used instead of refusing",
    )
    add_worker_options(parser)
    parser.add_argument("--force", action="store_true", help="make everything again")
    return parser


def run_own(args: argparse.Namespace) -> int:
    """Prepare the corpus; what is there already costs nothing."""
    from snowmelt.core.log import setup_logging
    from snowmelt.prepare.own import OwnCorpus, own_steps
    from snowmelt.prepare.own_vocabulary import vocabulary_step
    from snowmelt.prepare.pipeline import Pipeline

    if not args.name or args.name.startswith(".") or "/" in args.name:
        raise ConfigError(f"{args.name!r} is no name of a corpus", "use letters and digits")
    vocabulary = _vocabulary(args)
    workers = chosen_workers(args)
    setup_logging()
    utterances, folder = _utterances(args)
    corpus = OwnCorpus(
        name=args.name,
        utterances=utterances,
        audio_dir=args.audio or folder,
        letter_case=args.normalise,
        dev_share=args.dev_share,
        test_share=args.test_share,
        skip_bad=args.skip_bad,
    )
    with workers:
        steps = own_steps(corpus, args.data_dir, workers)
        if vocabulary is not None:
            steps.append(vocabulary_step(args.name, args.data_dir, vocabulary))
        made = Pipeline(args.name, args.data_dir, steps).run(1, 3, force=args.force)
    print(
        f"{args.name} is prepared in {args.data_dir / args.name}: {'; '.join(made)}",
        file=sys.stderr,
    )
    return 0


def _vocabulary(args: argparse.Namespace) -> "VocabularySettings | None":
    """What --tokenizer and the options of BPE ask for; None: nothing."""
    from snowmelt.prepare.own_vocabulary import VocabularySettings

    of_bpe = {
        name: getattr(args, name)
        for name in ("vocab_size", "character_coverage", "byte_fallback")
        if getattr(args, name)
    }
    if of_bpe and args.tokenizer != "bpe":
        option = next(iter(of_bpe)).replace("_", "-")
        raise ConfigError(f"--{option} is an option of BPE vocabularies", "add --tokenizer bpe")
    return VocabularySettings(args.tokenizer, **of_bpe) if args.tokenizer else None


def _utterances(args: argparse.Namespace) -> "tuple[list[Transcribed], Path]":
    """The list, and the folder that its files are in if nothing else is said."""
    from snowmelt.prepare.lhotse_lists import read_cuts, read_recordings
    from snowmelt.prepare.transcripts import read_kaldi, read_transcripts

    if (args.recordings is None) != (args.supervisions is None):
        raise ConfigError("--recordings and --supervisions belong together", "give both")
    if args.transcripts is not None:
        return read_transcripts(args.transcripts), args.transcripts.parent
    if args.kaldi_dir is not None:
        return read_kaldi(args.kaldi_dir), Path()
    if args.cuts is not None:
        return read_cuts(args.cuts), Path()
    return read_recordings(args.recordings, args.supervisions), Path()


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share, write 0 or more and below 1")
    return share
