"""How is an audit told? As text, as a page with plots, as a list for programs, as clean manifests.

    DIR/report.txt           what was found, in numbers and by utterance
    DIR/report.html          the same with plots, one file that needs no others
    DIR/findings.jsonl       one object a finding: defect, fatal, split, cut, detail
    DIR/clean/<manifest>     the cuts of each split without a finding

Invariant: files appear whole or not at all; the text of a transcript or path is never read as HTML.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lhotse import CutSet

from snowmelt.core.files import atomic_path, write_text
from snowmelt.data.audit import Audit, Finding, Utterance, count_by_defect
from snowmelt.data.cuts import cut_text

__all__ = ["report_text", "write_report"]

# Utterances of one defect that the text names; the list has them all.
_SHOWN: Final = 20

_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border:1px solid #ccc;"
    "text-align:left;vertical-align:top}img{max-width:100%}.fatal{color:#b00}"
)


def write_report(audit: Audit, directory: Path, manifest_names: Mapping[str, str]) -> None:
    """Write all files of the report.

    Args:
        audit: what was found.
        directory: made where it is missing; files of an earlier report are replaced.
        manifest_names: split -> file name of its clean manifest (.jsonl.gz): named like the
            originals, the folder can take their place.
    """
    flagged = {(finding.split, finding.cut_id) for finding in audit.findings}
    for split, name in manifest_names.items():
        kept = [
            u.cut for u in audit.utterances if u.split == split and (split, u.cut.id) not in flagged
        ]
        with atomic_path(directory / "clean" / name) as temporary:
            CutSet.from_cuts(kept).to_file(temporary)
    lines = [json.dumps(_as_object(finding), ensure_ascii=False) for finding in audit.findings]
    write_text(directory / "findings.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(directory / "report.html", _page(audit))
    write_text(directory / "report.txt", report_text(audit))


def report_text(audit: Audit) -> str:
    """The report for a terminal."""
    lines = [f"{name}: {text}" for name, text in _splits(audit)]
    counts = count_by_defect(audit.findings)
    lines.append("")
    if not counts:
        lines.append("Nothing was found: training may start.")
    for defect, count in counts.items():
        of_defect = [finding for finding in audit.findings if finding.defect == defect]
        fatal = ", training must not start with it" if of_defect[0].is_fatal else ""
        lines.append(f"{defect}: {count}{fatal}")
        lines += [f"    {f.split} {f.cut_id}: {f.detail}" for f in of_defect[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"    and {count - _SHOWN} more, see findings.jsonl")
    return "\n".join(lines) + "\n"


def _splits(audit: Audit) -> list[tuple[str, str]]:
    """Size of each split, in words."""
    rows = []
    for split in dict.fromkeys(u.split for u in audit.utterances):
        cuts = [u.cut for u in audit.utterances if u.split == split]
        speakers = {s.speaker for cut in cuts for s in cut.supervisions if s.speaker}
        hours = sum(cut.duration for cut in cuts) / 3600
        words = sum(len(cut_text(cut).split()) for cut in cuts)
        rows.append(
            (
                split,
                f"{len(cuts)} utterances, {hours:.2f} hours, {len(speakers)} speakers, "
                f"{words} words",
            )
        )
    return rows


def _as_object(finding: Finding) -> dict[str, str | bool]:
    return {
        "defect": finding.defect,
        "fatal": finding.is_fatal,
        "split": finding.split,
        "cut": finding.cut_id,
        "detail": finding.detail,
    }


def _page(audit: Audit) -> str:
    verdict = "Training may start." if audit.is_fit else "Training must not start with this."
    splits = "".join(f"<li>{html.escape(f'{name}: {text}')}</li>" for name, text in _splits(audit))
    rows = "".join(
        f"<tr><td{' class=fatal' if f.is_fatal else ''}>{html.escape(f.defect)}</td>"
        f"<td>{html.escape(f.split)}</td><td>{html.escape(f.cut_id)}</td><td>{html.escape(f.detail)}</td></tr>"
        for f in audit.findings
    )
    counts = "".join(
        f"<tr><td>{html.escape(defect)}</td><td>{count}</td></tr>"
        for defect, count in count_by_defect(audit.findings).items()
    )
    table = (
        f"<table><tr><th>defect</th><th>number</th></tr>{counts}</table><h2>Utterances</h2>"
        f"<table><tr><th>defect</th><th>split</th><th>utterance</th><th>why</th></tr>{rows}</table>"
        if audit.findings
        else "<p>Nothing was found.</p>"
    )
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Audit of a corpus</title>'
        f"<style>{_STYLE}</style><h1>Audit of a corpus</h1><p><b>{verdict}</b></p>"
        f"<ul>{splits}</ul>"
        '<img alt="lengths, speaking rates and levels" '
        f'src="data:image/png;base64,{_plots(audit)}">'
        f"<h2>Findings</h2>{table}</html>\n"
    )


def _plots(audit: Audit) -> str:
    """Histograms of lengths, speaking rates and levels of each split: a PNG in base64."""
    # Its own canvas: no window system is asked for, no state is shared.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values: dict[str, Callable[[Utterance], float | None]] = {
        "seconds": lambda u: float(u.cut.duration),
        "characters a second of speech": _rate,
        "loudest 25 ms, dB": lambda u: u.facts.level_db if u.facts and u.facts.digest else None,
    }
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, value) in zip(figure.subplots(1, len(values)), values.items(), strict=True):
        for split in dict.fromkeys(u.split for u in audit.utterances):
            known = [
                v for u in audit.utterances if u.split == split and (v := value(u)) is not None
            ]
            if known:
                axes.hist(known, bins=40, histtype="step", density=True, label=split)
        axes.set_xlabel(label)
        axes.set_yticks([])
        if axes.has_data():
            axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return base64.b64encode(image.getvalue()).decode("ascii")


def _rate(utterance: Utterance) -> float | None:
    facts = utterance.facts
    if facts is None or not facts.speech_s:
        return None
    return len(cut_text(utterance.cut).replace(" ", "")) / facts.speech_s
