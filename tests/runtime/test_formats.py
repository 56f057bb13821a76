"""CTM by its columns, and JSON that holds what a result holds."""

import json
import math
import re
from dataclasses import replace

import pytest

from snowmelt.runtime.formats import ctm_lines, result_fields
from snowmelt.runtime.words import Word
from tests.evaluate.corpus import hypothesis, utterance

_CTM = re.compile(r"(\S+) (\S+) (\d+\.\d{3}) (\d+\.\d{3}) (\S+) ([01]\.\d{4})")


def read_ctm(text: str) -> list[tuple[str, str, float, float, str, float]]:
    """Rows of sclite's CTM: file, channel, start, duration, word, confidence."""
    rows = []
    for line in text.splitlines():
        match = _CTM.fullmatch(line)
        assert match, line
        file, channel, start, duration, word, confidence = match.groups()
        rows.append((file, channel, float(start), float(duration), word, float(confidence)))
    return rows


def _result(text="NO YES"):
    return hypothesis(utterance("u", "NO"), text).nbest[0]


def test_a_line_a_word():
    lines = ctm_lines("u1", _result())
    assert lines == ["u1 1 0.000 0.320 NO 0.6000", "u1 1 1.000 0.320 YES 0.6000"]
    assert ctm_lines("u1", _result("")) == []


def test_columns_stay_columns():
    words = (Word("A", 0.04, 0.04, 1.0), Word("B", 1 / 3, 2 / 3, 1e-9))
    result = replace(_result(), words=words, start_time=3600.0)
    rows = read_ctm("\n".join(ctm_lines("my file\t.wav", result)))
    assert rows == [
        ("my_file_.wav", "1", 3600.04, 0.0, "A", 1.0),
        ("my_file_.wav", "1", 3600.333, 0.334, "B", 0.0),
    ]
    assert read_ctm("\n".join(ctm_lines("", result)))[0][0] == "_"


def test_fields_of_a_result():
    fields = json.loads(json.dumps(result_fields(_result())))
    assert fields["text"] == "NO YES"
    assert fields["words"][1] == {"word": "YES", "start": 1.0, "end": 1.32, "confidence": 0.6}
    lens = {len(fields[key]) for key in fields if key.startswith("t") and key != "text"}
    assert lens == {2}
    assert fields["token_confidences"] == pytest.approx([math.exp(-0.5)] * 2, abs=1e-4)
