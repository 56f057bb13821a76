"""Result files are read back: rows from both kinds, speakers from ours."""

import json

import pytest

from snowmelt.core.errors import DataError
from snowmelt.evaluate.report import DecodingSettings, write_report
from snowmelt.evaluate.results import read_results
from snowmelt.evaluate.transcripts import write_transcripts
from snowmelt.runtime.load import WeightsChoice
from tests.evaluate.corpus import hypothesis, utterance


@pytest.fixture
def folder(tmp_path):
    """Files of two utterances of two speakers."""
    rows = [
        hypothesis(utterance("u1", "A B", "ann"), "A"),
        hypothesis(utterance("u2", "", "bob"), ""),
    ]
    settings = DecodingSettings(WeightsChoice(epoch=1, avg=1), 32, 2)
    score = write_report(rows, "test", settings, tmp_path)
    write_transcripts(rows, score, settings, tmp_path, about={}, times=None)
    return tmp_path / "greedy_search"


def _only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_both_files_say_the_same(folder):
    recogs, results = (read_results(_only(folder, f"{n}-*")) for n in ("recogs", "results"))
    assert recogs.rows == results.rows == [("u1", ["A", "B"], ["A"]), ("u2", [], [])]
    assert recogs.speakers == results.speakers == {"u1": "ann", "u2": "bob"}
    assert recogs.name == str(_only(folder, "recogs-*"))


def test_a_recogs_file_alone_is_enough(folder):
    path = _only(folder, "results-*")
    path.write_text("{}")
    assert read_results(_only(folder, "recogs-*")).speakers == {}
    path.unlink()
    assert read_results(_only(folder, "recogs-*")).speakers == {}


def test_speakers_are_known_of_all_or_not_at_all(folder):
    path = _only(folder, "results-*")
    content = json.loads(path.read_text())
    content["utterances"][1]["speaker"] = None
    path.write_text(json.dumps(content))
    assert read_results(path).speakers == {} == read_results(_only(folder, "recogs-*")).speakers


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"utterances": [{"id": "u"}]}', '{"utterances": 3}']
    + [
        json.dumps({"utterances": [{"id": "u", "speaker": None, "ref": ref, "hyp": []}]})
        for ref in ("A", [1], None)
    ],
)
def test_other_json_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match="holds no results of snowmelt decode"):
        read_results(path)


def test_files_without_utterances_or_with_one_twice(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"utterances": []}')
    with pytest.raises(DataError, match="holds no utterance"):
        read_results(path)
    one = {"id": "u", "speaker": None, "ref": [], "hyp": []}
    path.write_text(json.dumps({"utterances": [one, one]}))
    with pytest.raises(DataError, match="holds an utterance twice"):
        read_results(path)
    with pytest.raises(DataError, match="does not exist"):
        read_results(tmp_path / "other.json")
