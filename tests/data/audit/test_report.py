"""An audit is told in four forms, and none of them is fooled by what a transcript says."""

import json
from pathlib import Path

from lhotse import CutSet

from snowmelt.data.audit import audit
from snowmelt.data.audit.report import report_text, write_report
from tests.data.audit.planted import SPLITS, corpus

_NAMES = {split: f"mine_cuts_{split}.jsonl.gz" for split in SPLITS}


def test_a_sick_corpus(tmp_path: Path) -> None:
    cuts = corpus(tmp_path / "sounds")
    cuts["train"][5].supervisions[0].text = ""
    cuts["test"][2].supervisions[0].speaker = "train-1"
    cuts["dev"][1].id = "<script>alert(1)</script>"
    cuts["dev"][1].supervisions[0].text = " "
    found = audit(cuts)
    out = tmp_path / "report"
    write_report(found, out, _NAMES)

    assert sorted(p.name for p in out.iterdir()) == [
        "clean",
        "findings.jsonl",
        "report.html",
        "report.txt",
    ]
    rows = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    assert [(row["defect"], row["fatal"], row["split"]) for row in rows] == [
        ("no-transcript", False, "train"),
        ("no-transcript", False, "dev"),
        ("speaker-in-two-splits", True, "test"),
    ]
    text = (out / "report.txt").read_text()
    assert text == report_text(found)
    assert "train: 40 utterances" in text
    assert "speaker-in-two-splits: 1, training must not start with it\n    test test-02: " in text
    page = (out / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "Training must not start" in page and "data:image/png;base64,iVBOR" in page
    clean = {split: CutSet.from_file(out / "clean" / name) for split, name in _NAMES.items()}
    assert {split: len(those) for split, those in clean.items()} == {
        "train": 39,
        "dev": 5,
        "test": 5,
    }
    assert "train-05" not in {cut.id for cut in clean["train"]}


def test_a_healthy_corpus(tmp_path: Path) -> None:
    found = audit(corpus(tmp_path / "sounds"))
    write_report(found, tmp_path / "report", _NAMES)
    assert "Nothing was found: training may start." in report_text(found)
    assert (tmp_path / "report" / "findings.jsonl").read_text() == ""
    assert len(CutSet.from_file(tmp_path / "report" / "clean" / _NAMES["train"])) == 40


def test_many_findings_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    cuts = corpus(tmp_path)
    for cut in cuts["train"][:25]:
        cut.supervisions[0].text = ""
    text = report_text(audit(cuts))
    assert "no-transcript: 25\n" in text and "    and 5 more, see findings.jsonl" in text
    assert "train-19" in text and "train-20" not in text
