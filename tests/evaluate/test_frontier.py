"""Which settings are worth it, and files that show them."""

import html
import json
import re
from dataclasses import replace

import pytest

from snowmelt.evaluate.frontier import Point, frontier, frontier_table, write_frontier
from snowmelt.evaluate.latency import Latency, Spread
from snowmelt.text.wer import WerStats


def _point(delay_ms, errors, chunk=32, model="a", test_set="dev", search="greedy_search"):
    delay = None if delay_ms is None else Spread(10, delay_ms / 1000, delay_ms / 1000, 1.0)
    first = Spread(2, 0.5, 0.5, 0.5)
    latency = Latency(chunk / 100, 0.0775, delay, first, first, None, None, 8, 2, 0.04)
    return Point(test_set, model, search, chunk, WerStats(100, errors, 0, 0), latency)


def test_a_point_that_another_beats_is_not_on_the_frontier():
    quick, middle, good = _point(-50, 9, 16), _point(80, 5), _point(200, 3, 64)
    worse, late, twin = _point(90, 6), _point(100, 5), _point(-50, 10)
    assert frontier([worse, good, late, middle, twin, quick]) == [quick, middle, good]
    assert frontier([]) == []


def test_without_word_times_a_chunk_and_its_look_ahead_are_the_delay():
    assert _point(None, 3, 16).delay_s == pytest.approx(0.2375)


def test_the_table_names_the_frontier_of_each_test_set():
    points = [_point(50, 4), _point(90, 4), _point(90, 4, test_set="test"), _point(None, 9)]
    header, *rows = frontier_table(points)
    star, delay = header.index("frontier"), header.index("p50")
    assert [row[star] for row in rows] == ["*", "", "*", ""]
    assert [row[delay] for row in rows] == ["50", "90", "90", ""]
    assert rows[0][header.index("revised %")] == "25.00"
    assert {len(row) for row in rows} == {len(header)}


def test_files(tmp_path):
    points = [_point(50, 4, 16), _point(90, 2), _point(70, 3, model="<b> & c")]
    points += [replace(point, test_set="other") for point in points]
    write_frontier(points, tmp_path / "new")
    folder = tmp_path / "new"
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((folder / "frontier.json").read_text())["points"]
    assert [p["on_frontier"] for p in content] == [True] * 6
    assert content[0]["delay_s"] == 0.05 and content[0]["wer"] == 4.0
    assert content[0]["latency"]["emission_delay_s"]["number"] == 10
    page = (folder / "frontier.html").read_text()
    assert "<b>" not in page and html.escape("<b> & c") in page
    assert page.count("<tr") == 7
    # One file that needs no others.
    assert re.findall(r'(?:src|href)="(.{10})', page) == ["data:image"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_frontier(points, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
