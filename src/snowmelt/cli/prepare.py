"""`snowmelt prepare`: a corpus becomes manifests, features, vocabularies, graphs, in stages."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snowmelt.cli.arguments import add_bool, positive_int
from snowmelt.cli.prepare_audit import add_audit, run_audit
from snowmelt.cli.prepare_own import add_own, run_own
from snowmelt.cli.prepare_shar import add_shar, run_shar
from snowmelt.cli.worker_options import add_worker_options, chosen_workers
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.prepare.pipeline import Step
    from snowmelt.prepare.places import Places

__all__ = ["add_parser", "run"]

_MAX_JOBS: Final = 15
_LAST_LM_STAGE: Final = 14
_SUBSETS: Final = ("XS", "S", "M", "L", "XL")

_LIBRISPEECH_STAGES: Final = """\
stages, numbered like icefall's prepare.sh; 10 + n is stage n of prepare_lm.sh:
  -1  fetch word n-grams, lexicon and word list (OpenSLR 11)
   0  fetch LibriSpeech (OpenSLR 12, 31) and MUSAN (OpenSLR 17)
   1  manifests of LibriSpeech
   2  manifests of MUSAN
   3  features of LibriSpeech
   4  features of MUSAN
   5  BPE vocabulary, and how many tokens and frames every cut has
   6  phone lexicon and list of words
  10  BPE lexicon
  11  word grammars, 3-grams and 4-grams
  13  LG, the search graph of lexicon and 3-grams
  14  n-grams of pieces, 2 to 5
Stages 6 and 11 read <dl-dir>/lm, as stage -1 fills it. Without a published n-gram model there, one
is estimated from librispeech-lm-norm.txt(.gz).
What is done already is not done again; a run that was killed goes on where it stopped.
"""


_GIGASPEECH_STAGES: Final = """\
stages, numbered like icefall's prepare_giga_speech.sh:
   0  look for <dl-dir>/GigaSpeech
   1  manifests
   2  clean transcripts
   3  features of DEV and TEST
   4  split training subsets into pieces of 19 recordings
   5  features of the pieces
   6  join the pieces (not needed for training)
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "prepare", help="prepare a corpus", description="Prepare a corpus for training."
    )
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True)
    for name in ("digits", "an4"):
        small = corpora.add_parser(name, help="a small corpus that comes as one archive")
        _add_data_dir(small)
        small.add_argument(
            "--archive", type=Path, help="the corpus's archive (default: <data-dir>/<corpus>.tar)"
        )
    _add_librispeech(corpora)
    musan = corpora.add_parser("musan", help="music, speech and noise to mix into utterances")
    _add_stages(musan, last=4)
    _add_on_the_fly(musan)
    _add_mirror(musan)
    _add_gigaspeech(corpora)
    _add_data_dir(add_own(corpora))
    _add_data_dir(add_audit(corpora))
    _add_data_dir(add_shar(corpora))
    status = corpora.add_parser("status", help="what has been prepared")
    _add_data_dir(status)


def _add_librispeech(corpora: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = corpora.add_parser(
        "librispeech",
        help="read English books, 960 hours",
        description="Prepare LibriSpeech, or the parts of it that are wanted.",
        epilog=_LIBRISPEECH_STAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_stages(parser, last=5)
    _add_on_the_fly(parser)
    _add_mirror(parser)
    add_bool(
        parser,
        "--full-libri",
        default=True,
        help="all 960 hours, or train-clean-100; dev and test sets",
    )
    add_bool(parser, "--mini-libri", default=False, help="train-clean-5 and dev-clean-2 only")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=[],
        metavar="PART",
        help="parts to prepare instead, folders below <dl-dir>/LibriSpeech",
    )
    parser.add_argument(
        "--vocab-size",
        type=positive_int,
        nargs="+",
        default=[500],
        metavar="N",
        help="sizes of BPE vocabularies (default: 500)",
    )
    add_bool(
        parser, "--perturb-speed", default=True, help="add copies of training parts at 0.9 and 1.1"
    )
    add_bool(parser, "--enable-musan", default=True, help="prepare MUSAN too")
    add_bool(
        parser,
        "--lm",
        default=False,
        help="stages 6 to 14 too: lexicon, word grammars, LG, n-grams",
    )


def _add_gigaspeech(corpora: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = corpora.add_parser(
        "gigaspeech",
        help="audiobooks, podcasts and videos, 10,000 hours",
        description="Prepare GigaSpeech, which its owners give away with a password.",
        epilog=_GIGASPEECH_STAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_stages(parser, last=5)
    _add_on_the_fly(parser)
    parser.add_argument(
        "--subset",
        nargs="+",
        choices=_SUBSETS,
        default=["XL"],
        help="training subsets to prepare beside DEV and TEST (default: XL)",
    )


def _add_stages(parser: argparse.ArgumentParser, *, last: int) -> None:
    _add_data_dir(parser)
    parser.add_argument(
        "--dl-dir",
        type=Path,
        default=Path("download"),
        help="where archives and sound are, or go (default: download)",
    )
    parser.add_argument("--stage", type=int, default=0, help="first stage (default: 0)")
    parser.add_argument("--stop-stage", type=int, help=f"last stage (default: {last})")
    add_worker_options(parser, max_jobs=_MAX_JOBS)
    parser.add_argument("--dry-run", action="store_true", help="say what is left to do, and stop")
    parser.add_argument(
        "--force", action="store_true", help="make the stages again; nothing is fetched again"
    )
    parser.set_defaults(last_stage=last)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="where it goes (default: data)"
    )


def _add_on_the_fly(parser: argparse.ArgumentParser) -> None:
    add_bool(
        parser,
        "--on-the-fly-feats",
        default=False,
        help="store no features: training computes them from sound",
    )


def _add_mirror(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="a mirror of OpenSLR's resources (default: https://www.openslr.org/resources)",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the corpus; what is there already costs nothing."""
    if args.corpus == "status":
        return _print_status(args.data_dir)
    if args.corpus == "own":
        return run_own(args)
    if args.corpus == "audit":
        return run_audit(args)
    if args.corpus == "shar":
        return run_shar(args)
    if args.corpus in ("digits", "an4"):
        from snowmelt.data.corpora import get_corpus

        folder = args.data_dir / args.corpus
        get_corpus(args.corpus, folder).prepare(args.archive)
        print(f"{args.corpus} is prepared in {folder}", file=sys.stderr)
        return 0
    return _run_stages(args)


def _run_stages(args: argparse.Namespace) -> int:
    from snowmelt.core.log import setup_logging
    from snowmelt.prepare.pipeline import Pipeline
    from snowmelt.prepare.places import BASE_URL, Places

    setup_logging()
    last = args.stop_stage
    if last is None:
        last = _LAST_LM_STAGE if getattr(args, "lm", False) else args.last_stage
    with chosen_workers(args) as workers:
        places = Places(
            data=args.data_dir,
            downloads=args.dl_dir,
            base_url=(getattr(args, "base_url", None) or BASE_URL).rstrip("/"),
            workers=workers,
        )
        pipeline = Pipeline(args.corpus, args.data_dir, _steps(args, places))
        selected = pipeline.selected(args.stage, last)
        if not selected:
            raise ConfigError(f"{args.corpus} has no stage from {args.stage} to {last}")
        estimate = _estimate(selected, places)
        if args.dry_run:
            for state in pipeline.states(args.stage, last, force=args.force):
                mark = "done" if state.is_done else "to do"
                print(f"stage {state.stage}: {state.title}: {mark}{_note(state.note)}")
            print(estimate or "nothing to fetch")
            return 0
        if estimate:
            print(estimate, file=sys.stderr)
        made = pipeline.run(args.stage, last, force=args.force)
    print(f"{args.corpus} is prepared in {args.data_dir}: {'; '.join(made)}", file=sys.stderr)
    return 0


def _steps(args: argparse.Namespace, places: "Places") -> "list[Step]":
    from snowmelt.prepare.gigaspeech_plan import gigaspeech_steps
    from snowmelt.prepare.plans import librispeech_parts, librispeech_steps, musan_steps

    has_stored_features = not args.on_the_fly_feats
    if args.corpus == "musan":
        return musan_steps(places, has_stored_features=has_stored_features)
    if args.corpus == "gigaspeech":
        return gigaspeech_steps(
            places, tuple(dict.fromkeys(args.subset)), has_stored_features=has_stored_features
        )
    parts = librispeech_parts(
        full_libri=args.full_libri,
        mini_libri=args.mini_libri,
        # One word with blanks in it, or several.
        parts=" ".join(args.parts).replace(",", " ").split(),
    )
    return librispeech_steps(
        places,
        parts,
        vocab_sizes=args.vocab_size,
        perturb_speed=args.perturb_speed,
        has_stored_features=has_stored_features,
        with_noise=args.enable_musan,
    )


def _estimate(steps: "Sequence[Step]", places: "Places") -> str:
    """What is to be fetched, how long it takes, and whether the disk has room for it."""
    from snowmelt.prepare.download import check_room, remote_size

    missing = [
        step.archive
        for step in steps
        if step.archive is not None
        and step.is_there is not None
        and not step.is_there()
        and not step.archive.path.exists()
    ]
    if not missing:
        return ""
    sizes = {archive.path.name: remote_size(archive.url) for archive in missing}
    return check_room(places.downloads, sizes)


def _print_status(data_dir: Path) -> int:
    from snowmelt.prepare.pipeline import recorded_steps

    corpora = recorded_steps(data_dir)
    if not corpora:
        print(f"nothing is prepared in {data_dir} (an4 and digits have no stages)")
    for corpus, states in corpora.items():
        print(f"{corpus}:")
        for state in states:
            mark = "done" if state.is_done else "not done"
            print(f"  stage {state.stage}: {state.title}: {mark}{_note(state.note)}")
    return 0


def _note(text: str) -> str:
    return f" ({text})" if text else ""
