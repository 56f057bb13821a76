"""`snowmelt streaming-decode`: the words of `snowmelt decode`, chunk by chunk."""

import json

import pytest

from tests.cli.scored import recogs, score, scored_experiment
from tests.runtime.tiny import TINY_MODELS


@pytest.fixture
def exp_dir(tmp_path, monkeypatch):
    yield from scored_experiment(tmp_path, monkeypatch)


@pytest.fixture(params=list(TINY_MODELS))
def any_exp_dir(request, tmp_path, monkeypatch):
    yield from scored_experiment(tmp_path, monkeypatch, TINY_MODELS[request.param])


@pytest.mark.parametrize(
    "options",
    [[], ["--decode-chunk-len", "16", "--max-sym-per-frame", "2"], ["--head", "giga"]],
)
def test_the_words_are_those_of_decode(any_exp_dir, options, capsys):
    exp_dir = any_exp_dir
    assert score("decode", exp_dir, *options) == 0
    assert score("streaming-decode", exp_dir, "--num-decode-streams", "2", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    for test_set in ("noise-test", "noise-dev"):
        whole = recogs(exp_dir, "greedy_search", test_set)
        assert recogs(exp_dir, "streaming/greedy_search", test_set) == whole


def test_beams_hear_the_same_chunk_by_chunk(any_exp_dir, capsys):
    exp_dir = any_exp_dir
    method = ["--decoding-method", "modified_beam_search"]
    assert score("decode", exp_dir, *method, "--beam-size", "3") == 0
    options = [*method, "--num_active_paths", "3", "--num-decode-streams", "2"]
    assert score("streaming-decode", exp_dir, *options) == 0
    for test_set in ("noise-test", "noise-dev"):
        whole = recogs(exp_dir, "modified_beam_search", test_set)
        assert recogs(exp_dir, "streaming/modified_beam_search", test_set) == whole


def test_files_have_the_originals_names(exp_dir, capsys):
    assert score("streaming-decode", exp_dir, "--splits", "dev") == 0
    folder = exp_dir / "streaming" / "greedy_search"
    suffix = "epoch-2-avg-2-streaming-chunk-size-32-use-averaged-model"
    names = {path.name for path in folder.iterdir()}
    assert {f"{kind}-noise-dev-{suffix}.txt" for kind in ("recogs", "errs", "wer-summary")} < names
    (log,) = folder.glob("log-decode-*")
    assert "RTF" in log.read_text()


def test_latency_is_printed_and_kept(any_exp_dir, capsys):
    exp_dir = any_exp_dir
    assert score("streaming-decode", exp_dir, "--splits", "dev") == 0
    (plain,) = capsys.readouterr().out.splitlines()
    assert score("streaming-decode", exp_dir, "--splits", "dev", "--latency") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == plain
    assert all(line.startswith("[noise-dev-greedy_search] ") for line in lines)
    assert "first partial from the start of the sound" in lines[2]
    assert "real-time factor" in lines[-1]
    (path,) = (exp_dir / "streaming" / "greedy_search").glob("latency-noise-dev-*.json")
    content = json.loads(path.read_text())
    assert f"%WER {content['wer']:.2f}%" in plain
    assert content["latency"]["emission_delay_s"] is None
    assert [len(u["updates"]) > 0 for u in content["utterances"]] == [True] * 3


def test_mistakes_are_one_line(exp_dir, capsys):
    assert score("streaming-decode", exp_dir, "--num-decode-streams", "0") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    oracle = ["--decoding-method", "fast_beam_search_nbest_oracle"]
    assert score("streaming-decode", exp_dir, *oracle) == 2
    err = capsys.readouterr().err
    assert "chooses by what was really said" in err and len(err.splitlines()) == 1
    assert score("streaming-decode", exp_dir, "--decode-chunk-len", "24") == 2
    err = capsys.readouterr().err
    assert "must be a multiple of 16" in err and len(err.splitlines()) == 1
