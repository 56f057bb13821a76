"""What does waiting buy? Word error rate over latency, of several settings, as a picture and table.

    DIR/frontier.json    every point with all figures
    DIR/frontier.png     a panel for each test set
    DIR/frontier.html    the picture and the table, one file that needs no others

A point is on the frontier if no other of its test set has both fewer errors and less delay.

Invariant: files appear whole or not at all; nothing is measured here.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from snowmelt.core.files import write_bytes, write_text
from snowmelt.evaluate.latency import Latency, Spread
from snowmelt.text.wer import WerStats

__all__ = ["Point", "frontier", "frontier_table", "write_frontier"]

_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .6rem;border:1px solid #ccc;"
    "text-align:right}td:nth-child(-n+3),th{text-align:left}img{max-width:100%}"
    ".best{font-weight:bold}"
)
_INCHES: Final = 4.5  # a panel's width
_MARKERS: Final = "osD^vP*X"


@dataclass(frozen=True)
class Point:
    """One setting on one test set.

    Attributes:
        test_set: its name.
        model: the experiment, as it is called in the picture.
        search: the decoding method with its numbers.
        decode_chunk_len: feature frames of 10 ms.
        stats: word errors.
        latency: how late the words came.
    """

    test_set: str
    model: str
    search: str
    decode_chunk_len: int
    stats: WerStats
    latency: Latency

    @property
    def delay_s(self) -> float:
        """Half of the words come later; where word times are not known, how long a sound may wait.

        That is until its chunk has ended and what the encoder looks ahead has been heard.
        """
        spread = self.latency.emission_delay_s
        if spread is None:
            return self.latency.chunk_s + self.latency.look_ahead_s
        return spread.p50


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: by delay, the quickest first. All are of one test set."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.delay_s, p.stats.wer)):
        if not best or point.stats.wer < best[-1].stats.wer:
            best.append(point)
    return best


def frontier_table(points: Sequence[Point]) -> list[list[str]]:
    """A header and a line a point; a star marks those on the frontier of their test set."""
    lines = [
        [
            *("test set", "model", "search", "chunk ms", "WER", "frontier"),
            *("delay ms: mean", "p50", "p90"),
            *("first partial ms", "complete ms", "final ms", "revised %", "RTF"),
        ]
    ]
    best = _frontiers(points)
    for point in points:
        latency = point.latency
        delay = latency.emission_delay_s
        lines.append(
            [
                point.test_set,
                point.model,
                point.search,
                f"{1000 * latency.chunk_s:.0f}",
                f"{point.stats.wer:.2f}",
                "*" if point in best else "",
                *(
                    ["", "", ""]
                    if delay is None
                    else [_ms(value) for value in (delay.mean, delay.p50, delay.p90)]
                ),
                _median(latency.first_partial_after_onset_s),
                _median(latency.complete_s),
                _median(latency.final_s),
                f"{100 * latency.revised:.2f}",
                f"{latency.rtf:.3f}",
            ]
        )
    return lines


def write_frontier(points: Sequence[Point], directory: Path) -> None:
    """Write all files; those of an earlier run are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    best = _frontiers(points)
    content = {"points": [_as_object(point, is_best=point in best) for point in points]}
    picture = _picture(points)
    write_text(
        directory / "frontier.json", f"{json.dumps(content, ensure_ascii=False, indent=1)}\n"
    )
    write_bytes(directory / "frontier.png", picture)
    write_text(directory / "frontier.html", _page(points, picture))


def _test_sets(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.test_set for point in points))


def _frontiers(points: Sequence[Point]) -> list[Point]:
    return [
        point
        for test_set in _test_sets(points)
        for point in frontier([p for p in points if p.test_set == test_set])
    ]


def _as_object(point: Point, *, is_best: bool) -> dict[str, Any]:
    return {
        "test_set": point.test_set,
        "model": point.model,
        "search": point.search,
        "decode_chunk_len": point.decode_chunk_len,
        "wer": point.stats.wer,
        "delay_s": point.delay_s,
        "on_frontier": is_best,
        "errors": asdict(point.stats),
        "latency": {
            name: value._asdict() if isinstance(value, Spread) else value
            for name, value in vars(point.latency).items()
        },
    }


def _page(points: Sequence[Point], picture: bytes) -> str:
    header, *rows = frontier_table(points)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=best' if '*' in row else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>\n"
        for row in rows
    )
    image = base64.b64encode(picture).decode("ascii")
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>WER and latency</title>'
        f"<style>{_STYLE}</style><h1>Word error rate over latency</h1>"
        f'<img alt="word error rate over latency" src="data:image/png;base64,{image}">'
        f"<table><tr>{head}</tr>\n{body}</table>"
        "<p>Delays are milliseconds of sound, not of computing: how much had been heard when a "
        "word stood, minus the true end of the word (first partial: minus the start of the speech; "
        "complete, final: minus its end; medians). Bold: no other setting has fewer errors and "
        "less delay. RTF: seconds of computing for a second of sound.</p></html>\n"
    )


def _picture(points: Sequence[Point]) -> bytes:
    """A PNG: a panel for each test set, a line for each model and search, a dot for each chunk."""
    # Its own canvas: no window system is asked for, no state is shared.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    test_sets = _test_sets(points)
    figure = Figure(figsize=(_INCHES * len(test_sets) + 1, _INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(test_sets), squeeze=False)[0]
    series = list(dict.fromkeys((point.model, point.search) for point in points))
    for axes, test_set in zip(panels, test_sets, strict=True):
        own = [point for point in points if point.test_set == test_set]
        best = frontier(own)
        axes.step(
            [1000 * point.delay_s for point in best],
            [point.stats.wer for point in best],
            where="post",
            color="0.75",
            linewidth=5,
            zorder=0,
            label="frontier",
        )
        for number, (model, search) in enumerate(series):
            line = sorted(
                (p for p in own if (p.model, p.search) == (model, search)),
                key=lambda p: p.decode_chunk_len,
            )
            axes.plot(
                [1000 * point.delay_s for point in line],
                [point.stats.wer for point in line],
                marker=_MARKERS[number % len(_MARKERS)],
                label=f"{model}, {search}",
            )
            for point in line:
                axes.annotate(
                    f"{1000 * point.latency.chunk_s:.0f}",
                    (1000 * point.delay_s, point.stats.wer),
                    textcoords="offset points",
                    xytext=(4, 4),
                    fontsize="small",
                )
        has_delays = all(point.latency.emission_delay_s is not None for point in own)
        axes.set_xlabel(
            "median emission delay of words, ms" if has_delays else "chunk and look-ahead, ms"
        )
        axes.set_title(test_set)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("word error rate, %")
    panels[0].legend(fontsize="small", title="dots: chunk, ms")
    image = io.BytesIO()
    # Without the version of matplotlib in it: the same figures give the same file.
    figure.savefig(image, format="png", dpi=100, metadata={"Software": None})
    return image.getvalue()


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


def _median(spread: Spread | None) -> str:
    return "" if spread is None else _ms(spread.p50)
