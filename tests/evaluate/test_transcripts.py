"""CTM and JSON of a test set: named like the original's files, complete, the same every time."""

import json
from pathlib import Path

from snowmelt.evaluate.report import DecodingSettings, result_suffix, write_report
from snowmelt.evaluate.transcripts import write_transcripts
from snowmelt.evaluate.word_times import TimeErrors, WordTimes
from snowmelt.runtime.load import WeightsChoice
from snowmelt.search.methods import SearchOptions
from tests.evaluate.corpus import hypothesis, utterance
from tests.runtime.test_formats import read_ctm

_SETTINGS = DecodingSettings(
    WeightsChoice(epoch=30, avg=9), 32, 2, SearchOptions("modified_beam_search")
)


def _written(folder, rows, times=None):
    score = write_report(rows, "test", _SETTINGS, folder)
    write_transcripts(
        rows,
        score,
        _SETTINGS,
        folder,
        about={"weights_sha256": "12ab", "options": {"graph": Path("a/b")}},
        times=times,
    )
    name = f"test-{result_suffix(_SETTINGS)}"
    own = folder / "modified_beam_search"
    return (own / f"ctm-{name}.ctm").read_text(), (own / f"results-{name}.json").read_text()


def test_words_of_all_utterances(tmp_path):
    rows = [
        hypothesis(utterance("u1", "A B", "ann"), "A B", "A", "B"),
        hypothesis(utterance("u2", "C"), ""),
        hypothesis(utterance("u3", "Ü"), "Ü"),
    ]
    ctm, text = _written(tmp_path, rows)
    assert [(row[0], row[2], row[4]) for row in read_ctm(ctm)] == [
        ("u1", 0.0, "A"),
        ("u1", 1.0, "B"),
        ("u3", 0.0, "Ü"),
    ]
    results = json.loads(text)
    assert results["wer"] == 25.0 and results["errors"]["deletions"] == 1
    assert results["test_set"] == "test" and results["key"] == "beam_size_4"
    assert results["options"] == {"graph": "a/b"}
    assert results["weights_sha256"] == "12ab" and results["word_times"] is None
    assert results["settings"]["search"]["beam_size"] == 4
    assert results["settings"]["weights"]["epoch"] == 30
    first, second, third = results["utterances"]
    assert (first["id"], first["speaker"], first["duration"]) == ("u1", "ann", 10.0)
    assert first["ref"] == first["hyp"] == ["A", "B"]
    assert [entry["text"] for entry in first["nbest"]] == ["A B", "A", "B"]
    assert [entry["log_prob"] for entry in first["nbest"]] == [0, -1, -2]
    assert second["hyp"] == [] and second["speaker"] is None
    assert third["words"][0]["word"] == "Ü"
    # An utterance a line: for grep, and for a difference of two files.
    assert sum(line.startswith('{"id"') for line in text.splitlines()) == 3
    assert _written(tmp_path, rows) == (ctm, text)


def test_an_empty_test_set_and_one_without_words(tmp_path):
    ctm, text = _written(tmp_path, [])
    assert ctm == "" and json.loads(text)["utterances"] == []
    _, text = _written(tmp_path, [hypothesis(utterance("u1", ""), "A")])
    assert json.loads(text)["wer"] is None


def test_times_against_the_truth(tmp_path):
    errors = TimeErrors(0.1, 0.2, 0.3)
    _, text = _written(tmp_path, [], WordTimes(7, errors, errors))
    assert json.loads(text)["word_times"]["start"]["p90_s"] == 0.3
