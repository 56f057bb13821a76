"""`snowmelt prepare audit`: is a corpus fit to be trained on?"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from snowmelt.cli.arguments import finite_float
from snowmelt.cli.corpus_options import add_corpus_options, chosen_corpus, chosen_splits
from snowmelt.cli.worker_options import add_worker_options, chosen_workers
from snowmelt.core.errors import ConfigError, DataError

__all__ = ["add_audit", "run_audit"]

# Of the fields of `AuditLimits`; here, since the class is read after the options.
_LIMITS: Final = {
    "min_utterance_s": "shortest utterance, seconds (default: the corpus's preset)",
    "max_utterance_s": "longest training utterance, seconds (default: the corpus's preset)",
    "min_level_db": "loudest 25 ms of a silent utterance, dB (default: -50)",
    "max_clipped": "share of samples on flat tops (default: 0.0005)",
    "min_chars_per_s": "fewest characters in a second of speech (default: 1)",
    "max_chars_per_s": "most characters in a second of speech (default: 25)",
    "max_rate_deviation": "most standard deviations of that rate's logarithm (default: 8)",
    "min_similarity": "correlation from which two sounds are one (default: 0.985)",
}


def add_audit(
    corpora: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the subcommand and its options."""
    parser = corpora.add_parser(
        "audit",
        help="find what is wrong with a corpus",
        description="Listen to every utterance and look at its transcript. Nothing is changed: "
        "findings go to a report, and manifests without them beside it. Exit code 0: training may "
        "start; 2: it must not.",
    )
    add_corpus_options(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="the report (default: <data-dir>/audit/CORPUS)"
    )
    parser.add_argument(
        "--bpe-model",
        type=Path,
        metavar="FILE",
        help="vocabulary: bpe.model, tokens.txt or their folder; without one, words are counted "
        "as tokens and rare characters suspected",
    )
    parser.add_argument(
        "--ignore", nargs="+", default=[], metavar="DEFECT", help="defects that are none here"
    )
    add_worker_options(parser)
    for name, text in _LIMITS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=finite_float, metavar="X", help=text
        )
    return parser


def run_audit(args: argparse.Namespace) -> int:
    """Audit a corpus and write the report."""
    from snowmelt.core.log import setup_logging
    from snowmelt.data.audit import DEFECTS, Audit, AuditLimits, audit
    from snowmelt.data.audit.report import report_text, write_report
    from snowmelt.data.audit.start import memory_path, remember_heard
    from snowmelt.presets.recipes import data_preset
    from snowmelt.text.tokenizer import load_tokenizer

    unknown = sorted(set(args.ignore) - set(DEFECTS))
    if unknown:
        raise ConfigError(f"there is no defect {unknown[0]!r}", f"known: {', '.join(DEFECTS)}")
    workers = chosen_workers(args)
    setup_logging()
    tokenizer = None if args.bpe_model is None else load_tokenizer(args.bpe_model)
    corpus = chosen_corpus(args)
    splits = chosen_splits(args, corpus)
    preset = data_preset(args.prepared)
    chosen = {
        field.name: getattr(args, field.name)
        for field in fields(AuditLimits)
        if getattr(args, field.name) is not None
    }
    lengths = {n: getattr(preset, n) for n in ("min_utterance_s", "max_utterance_s")}
    limits = AuditLimits(**{**lengths, **chosen})
    with workers:
        found = audit(splits, limits=limits, tokenizer=tokenizer, map_tasks=workers.map)
    remember_heard(
        memory_path(args.data_dir, corpus.name), found.utterances, found.findings, limits
    )
    none_here = {*args.ignore, *corpus.known_defects}
    findings = tuple(f for f in found.findings if f.defect not in none_here)
    found = Audit(found.utterances, findings)
    output = args.output or args.data_dir / "audit" / args.prepared
    names = {split: f"{args.prepared}_cuts_{split}.jsonl.gz" for split in splits}
    write_report(found, output, names)
    print(report_text(found), end="")
    print(f"the report is in {output}", file=sys.stderr)
    if not found.is_fit:
        fatal = [f for f in findings if f.is_fatal]
        raise DataError(
            f"training must not start: {len(fatal)} findings, the first: {fatal[0].cut_id}: "
            f"{fatal[0].detail}",
            f"repair them, or train on the manifests in {output / 'clean'}",
        )
    return 0
