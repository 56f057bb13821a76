"""`snowmelt compare`: is one result better than another, and in which utterances?"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from snowmelt.evaluate.compare import Comparison
    from snowmelt.evaluate.significance import Bootstrap, Interval
    from snowmelt.text.wer import WerStats

__all__ = ["add_parser", "run"]

_DONE: Final = 0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "compare",
        help="is one result of a test set better than another",
        description="Compare two results of the same test set: word error rates with 95 % "
        "intervals, tests of their difference, and the utterances that differ most.",
        epilog="Speakers are known from results-*.json, which is looked for beside recogs-*.txt.",
    )
    for name in ("a", "b"):
        parser.add_argument(
            f"result_{name}",
            type=Path,
            metavar=f"RESULT_{name.upper()}",
            help="recogs-*.txt of snowmelt or icefall, or results-*.json",
        )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    import json

    from snowmelt.evaluate.compare import compare
    from snowmelt.evaluate.results import read_results

    a, b = read_results(args.result_a), read_results(args.result_b)
    comparison = compare(a, b)
    if args.json:
        print(json.dumps(_fields(a.name, b.name, comparison), ensure_ascii=False))
    else:
        print("\n".join(_lines(a.name, b.name, comparison)))
    return _DONE


def _lines(name_a: str, name_b: str, comparison: "Comparison") -> list[str]:
    found = comparison
    draws = {"utterance": found.by_utterance, "speaker": found.by_speaker}
    known = {f"{key} ({value.num_units})": value for key, value in draws.items() if value}
    table = [("", "A", "B"), ("WER", f"{found.stats_a.wer:.2f} %", f"{found.stats_b.wer:.2f} %")]
    table += [
        (f"  95 % by {unit}", _range(drawn.wer_a), _range(drawn.wer_b))
        for unit, drawn in known.items()
    ]
    table.append(("errors", _counts(found.stats_a), _counts(found.stats_b)))
    table.append(
        ("fewer errors in", f"{found.num_better_a} utterances", f"{found.num_better_b} utterances")
    )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"A  {name_a}", f"B  {name_b}", ""]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines += ["", f"B - A: {found.stats_b.wer - found.stats_a.wer:+.2f} points"]
    lines += [
        f"  95 % by {unit}: {_range(drawn.difference, sign='+')}, p = {_chance(drawn.p_value)}"
        for unit, drawn in known.items()
    ]
    pairs = found.pairs
    tested = "too few to tell"
    if pairs.z is not None and pairs.p_value is not None:
        tested = f"z = {pairs.z:+.2f}, p = {_chance(pairs.p_value)}"
    lines.append(f"  matched pairs, {pairs.num_segments} segments: {tested}")
    if found.differences:
        lines += ["", "utterances that differ most (errors of A, of B)"]
    for row in found.differences:
        lines.append(f"{row.utterance_id}  {row.errors_a}  {row.errors_b}")
        texts = {"ref": row.ref, "A": row.hyp_a, "B": row.hyp_b}
        lines += [f"  {label:<3}  {' '.join(words)}".rstrip() for label, words in texts.items()]
    return lines


def _fields(name_a: str, name_b: str, comparison: "Comparison") -> dict[str, Any]:
    found = comparison
    results = {
        name: {"result": path, "wer": round(stats.wer, 4), **vars(stats)}
        for name, path, stats in (("a", name_a, found.stats_a), ("b", name_b, found.stats_b))
    }
    return {
        **results,
        "difference": round(found.stats_b.wer - found.stats_a.wer, 4),
        "num_utterances": found.num_utterances,
        "num_better_a": found.num_better_a,
        "num_better_b": found.num_better_b,
        "bootstrap_by_utterance": _drawn_fields(found.by_utterance),
        "bootstrap_by_speaker": found.by_speaker and _drawn_fields(found.by_speaker),
        "matched_pairs": found.pairs._asdict(),
        "utterances": [row._asdict() for row in found.differences],
    }


def _drawn_fields(drawn: "Bootstrap") -> dict[str, Any]:
    return {
        key: [round(bound, 4) for bound in value] if isinstance(value, tuple) else value
        for key, value in drawn._asdict().items()
    }


def _range(interval: "Interval", sign: str = "") -> str:
    return f"{interval.low:{sign}.2f} to {interval.high:{sign}.2f}"


def _counts(stats: "WerStats") -> str:
    return (
        f"{stats.errors} / {stats.num_ref_words} ({stats.insertions} ins, {stats.deletions} del, "
        f"{stats.substitutions} sub)"
    )


def _chance(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value >= 0.0001 else "below 0.0001"
