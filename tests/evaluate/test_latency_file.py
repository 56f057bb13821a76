"""What is kept of a measurement comes back, unless anything it depends on has changed."""

import dataclasses
import json
from pathlib import Path

import pytest

from snowmelt.data.alignment import TimedWord
from snowmelt.evaluate.latency import measure
from snowmelt.evaluate.latency_file import (
    digest_of_inputs,
    latency_path,
    read_latency,
    write_latency,
)
from snowmelt.evaluate.partials import PartialLog, Shown, Update
from snowmelt.evaluate.report import DecodingSettings, Score
from snowmelt.evaluate.utterances import Utterance
from snowmelt.runtime.load import WeightsChoice
from snowmelt.text.wer import WerStats

SETTINGS = DecodingSettings(WeightsChoice(epoch=3, avg=2), 32, 2, is_streaming=True)
UTTERANCES = [
    Utterance("a", ["ONE"], 1.0, lambda: None, (TimedWord("ONE", 0.1, 0.4),)),
    Utterance("b", ["TWO"], 1.0, lambda: None),
]


@pytest.fixture
def kept(tmp_path):
    log = PartialLog()
    log.shown = {"a": Shown([Update(0.7, "ONE")], 1.5, 3)}
    score = Score("dev", "greedy_search", WerStats(2, 0, 1, 0), measure(log, UTTERANCES, 0.5))
    write_latency(score, UTTERANCES, log, settings=SETTINGS, exp_dir=tmp_path, inputs="x")
    return score


def _read(tmp_path, utterances=UTTERANCES, inputs="x", settings=SETTINGS):
    return read_latency("dev", utterances, settings=settings, exp_dir=tmp_path, inputs=inputs)


def test_it_comes_back(tmp_path, kept):
    assert _read(tmp_path) == kept
    path = latency_path(tmp_path, "dev", SETTINGS)
    assert path.parent == tmp_path / "streaming" / "greedy_search"
    suffix = "epoch-3-avg-2-streaming-chunk-size-32-use-averaged-model"
    assert path.name == f"latency-dev-{suffix}.json"
    content = json.loads(path.read_text())
    assert content["wer"] == 50.0 and content["latency"]["emission_delay_s"]["p50"] == 0.3
    assert content["utterances"] == [
        {"id": "a", "updates": [[0.7, "ONE"]], "final_s": 1.5, "delays_s": [0.3]},
        {"id": "b"},
    ]


def test_what_is_of_something_else_does_not(tmp_path, kept):
    longer = dataclasses.replace(UTTERANCES[1], duration_s=1.1)
    assert _read(tmp_path, utterances=[UTTERANCES[0], longer]) is None
    assert _read(tmp_path, inputs="y") is None
    assert _read(tmp_path, settings=dataclasses.replace(SETTINGS, decode_chunk_len=64)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": 1}', "{", "\xff"])
def test_damaged_files_are_none(tmp_path, kept, text):
    latency_path(tmp_path, "dev", SETTINGS).write_text(text, "latin-1")
    assert _read(tmp_path) is None


def test_a_file_of_an_older_layout_is_none(tmp_path, kept):
    path = latency_path(tmp_path, "dev", SETTINGS)
    content = json.loads(path.read_text())
    del content["latency"]["num_updates"]
    path.write_text(json.dumps(content))
    assert _read(tmp_path) is None


def test_the_chunk_of_an_lstm_is_named():
    settings = dataclasses.replace(SETTINGS, encoder="lstm")
    assert "latency-dev-chunk-size-32-epoch-3" in str(latency_path(Path(), "dev", settings))


def test_the_digest_is_of_contents(tmp_path):
    first, folder = tmp_path / "a.txt", tmp_path / "lang"
    first.write_text("QX")
    folder.mkdir()
    digest = digest_of_inputs({"a": 1, "b": 2}, [first, folder])
    second = first.rename(tmp_path / "b.txt")
    assert digest_of_inputs({"b": 2, "a": 1}, [second, folder]) == digest
    assert digest_of_inputs({"a": 1, "b": 3}, [second, folder]) != digest
    (folder / "words.txt").write_text("A 1")
    assert digest_of_inputs({"a": 1, "b": 2}, [second, folder]) != digest
    second.write_text("QY")
    assert digest_of_inputs({"a": 1, "b": 2}, [second]) != digest_of_inputs(
        {"a": 1, "b": 2}, [folder]
    )
