"""`snowmelt decode`: a line a test set, the original's files, one line for mistakes."""

import importlib
import json

import pytest

from snowmelt.checkpoint.experiment import load_experiment
from tests.cli.scored import recogs, score, scored_experiment
from tests.runtime.tiny import TINY_LSTM
from tests.runtime.tiny_lm import save_tiny_lm


@pytest.fixture
def exp_dir(tmp_path, monkeypatch):
    yield from scored_experiment(tmp_path, monkeypatch)


@pytest.fixture
def lstm_dir(tmp_path, monkeypatch):
    yield from scored_experiment(tmp_path, monkeypatch, TINY_LSTM)


def test_lines_and_files(exp_dir, capsys):
    assert score("decode", exp_dir) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("]")[0] for line in lines] == [
        "[noise-test-greedy_search",
        "[noise-dev-greedy_search",
    ]
    assert all("%WER" in line for line in lines)
    suffix = (
        "epoch-2-avg-2-streaming-chunk-size-32-context-2-max-sym-per-frame-1-use-averaged-model"
    )
    names = {path.name for path in (exp_dir / "greedy_search").iterdir()}
    for kind in ("recogs", "errs", "wer-summary"):
        for split in ("test", "dev"):
            assert f"{kind}-noise-{split}-{suffix}.txt" in names
    assert {f"ctm-noise-dev-{suffix}.ctm", f"results-noise-test-{suffix}.json"} <= names
    assert any(name.startswith(f"log-decode-{suffix}-") for name in names)
    ids = [line.split(":")[0] for line in recogs(exp_dir, "greedy_search", "noise-dev").split()]
    assert {"dev-0", "dev-1", "dev-2"} <= set(ids)


def test_options_reach_search_and_model(exp_dir, capsys):
    options = ["--splits", "test", "--epoch", "1", "--avg", "1", "--use-averaged-model", "0"]
    options += ["--decode-chunk-len", "64"]
    search = ["--max-sym-per-frame", "3", "--blank-penalty", "1.5"]
    assert score("decode", exp_dir, *options, *search) == 0
    (path,) = (exp_dir / "greedy_search").glob("recogs-*")
    assert path.name == (
        "recogs-noise-test-epoch-1-avg-1-streaming-chunk-size-64-context-2-max-sym-per-frame-3"
        "-blank-penalty-1.5.txt"
    )
    many = recogs(exp_dir, "greedy_search", "noise-test")
    path.unlink()
    assert score("decode", exp_dir, *options) == 0
    assert len(many) > 1.5 * len(recogs(exp_dir, "greedy_search", "noise-test"))


@pytest.mark.parametrize("command", ["decode", "streaming-decode"])
def test_an_lstm_s_files_name_no_chunk(lstm_dir, command, capsys):
    assert score(command, lstm_dir, "--splits", "test") == 0
    folder = "greedy_search" if command == "decode" else "streaming/greedy_search"
    (path,) = (lstm_dir / folder).glob("recogs-*")
    assert path.name == (
        "recogs-noise-test-epoch-2-avg-2-context-2-max-sym-per-frame-1-use-averaged-model.txt"
    )


def test_another_head_has_results_of_its_own(exp_dir, capsys):
    assert score("decode", exp_dir, "--splits", "test") == 0
    assert score("decode", exp_dir, "--splits", "test", "--head", "giga") == 0
    main, giga = sorted(
        (exp_dir / "greedy_search").glob("recogs-*"), key=lambda path: "head" in path.name
    )
    assert giga.name.endswith("max-sym-per-frame-1-head-giga-use-averaged-model.txt")
    assert main.read_text() != giga.read_text()


@pytest.mark.parametrize("max_duration", ["0.1", "1000"])
def test_batches_change_no_word(exp_dir, max_duration, capsys):
    assert score("decode", exp_dir, "--splits", "test") == 0
    expected = recogs(exp_dir, "greedy_search", "noise-test")
    assert score("decode", exp_dir, "--splits", "test", "--max-duration", max_duration) == 0
    assert recogs(exp_dir, "greedy_search", "noise-test") == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--corpus", "klingon"], "no corpus 'klingon'"),
        (["--splits", "train"], "holds no utterance"),
        (["--epoch", "5", "--avg", "1"], "has no epoch-4.pt, epoch-5.pt"),
        (["--iter", "100"], "has no checkpoint-100.pt"),
        (["--head", "ted"], "no head 'ted' (hint: choose main, giga)"),
        (["--avg", "3"], "epoch 2 has no 3 epochs"),
        (["--decoding-method", "magic"], "unknown decoding method"),
        (["--decoding-method", "greedy_search,beam"], "unknown decoding method 'beam'"),
        (["--avg", "1,3"], "epoch 2 has no 3 epochs"),
        (["--hotwords-file", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--num-nbest", "0"], "not a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line(exp_dir, options, reason, capsys):
    assert score("decode", exp_dir, *options) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and len(err.splitlines()) == 1
    assert not (exp_dir / "greedy_search").exists()


def test_lists_give_a_table(exp_dir, capsys):
    options = ["--avg", "1,2", "--decoding-method", "greedy_search,modified_beam_search"]
    assert score("decode", exp_dir, "--epoch", "2", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    rates = [line.split("%")[1].split()[1] for line in lines[:8]]
    table = [line.split() for line in lines[8:]]
    assert table[0] == ["epoch", "avg", "method", "noise-test", "noise-dev"]
    assert [row[:3] for row in table[1:]] == [
        ["2", avg, method]
        for avg in ("1", "2")
        for method in ("greedy_search", "modified_beam_search")
    ]
    assert [rate for row in table[1:] for rate in row[3:]] == rates
    suffix = "epoch-2-avg-1-streaming-chunk-size-32-modified_beam_search-beam-size-4"
    folder = exp_dir / "modified_beam_search"
    assert (folder / f"errs-noise-test-{suffix}-use-averaged-model.txt").exists()


def test_a_beam_of_one_is_greedy_search(exp_dir, capsys):
    options = ["--splits", "test", "--blank-penalty", "0.5", "--beam-size", "1"]
    methods = ["--decoding-method", "greedy_search,modified_beam_search"]
    assert score("decode", exp_dir, *options, *methods) == 0
    assert recogs(exp_dir, "greedy_search", "noise-test") == recogs(
        exp_dir, "modified_beam_search", "noise-test"
    )


def test_the_oracle_has_fewer_errors_than_any_choice(exp_dir, capsys):
    options = ["--splits", "test", "--num-paths", "50", "--nbest-scale", "0.1"]
    methods = ["fast_beam_search_nbest", "fast_beam_search_nbest_oracle"]
    assert score("decode", exp_dir, *options, "--decoding-method", ",".join(methods)) == 0
    table = capsys.readouterr().out.splitlines()[-2:]
    best, oracle = (float(line.split()[-1]) for line in table)
    assert oracle < best
    (path,) = (exp_dir / methods[1]).glob("errs-*")
    assert "-nbest-scale-0.1-num-paths-50-" in path.name


def _results(exp_dir, folder):
    (path,) = (exp_dir / folder).glob("results-noise-test-*.json")
    return json.loads(path.read_text())


def test_results_tell_how_they_came_about(exp_dir, capsys):
    method = ["--splits", "test", "--decoding-method", "modified_beam_search"]
    assert score("decode", exp_dir, *method, "--num-nbest", "3") == 0
    whole = _results(exp_dir, "modified_beam_search")
    assert [len(utterance["nbest"]) for utterance in whole["utterances"]] == [3, 3, 3]
    for utterance in whole["utterances"]:
        scores = [entry["confidence"] for entry in utterance["nbest"]]
        assert utterance["nbest"][0]["text"].split() == utterance["hyp"]
        assert sum(scores) <= 1.0 and all(0 < share < 1 for share in scores)
        ends = [utterance["timestamps"], utterance["token_ends"]]
        assert all(0 < end - start <= 0.3201 for start, end in zip(*ends, strict=True))
    assert whole["options"]["exp_dir"] == str(exp_dir) and whole["options"]["beam_size"] == 4
    assert whole["settings"]["weights"]["epoch"] == 2
    # Chunk by chunk with the same weights, and with others.
    assert score("streaming-decode", exp_dir, *method, "--num-nbest", "3") == 0
    chunks = _results(exp_dir, "streaming/modified_beam_search")
    assert chunks["weights_sha256"] == whole["weights_sha256"]
    assert [u["nbest"][0]["words"] for u in chunks["utterances"]] == [
        u["nbest"][0]["words"] for u in whole["utterances"]
    ]
    assert score("decode", exp_dir, "--splits", "test", "--epoch", "1") == 0
    assert _results(exp_dir, "greedy_search")["weights_sha256"] != whole["weights_sha256"]


def test_beam_is_not_beam_size(exp_dir, capsys, caplog):
    method = ["--decoding-method", "modified_beam_search", "--splits", "test"]
    assert score("decode", exp_dir, *method, "--beam", "4") == 0
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    expected = "--beam 4 has no effect on modified_beam_search: its option is --beam-size"
    assert warnings == [expected]


def test_hotwords_are_found_more_often(exp_dir, tmp_path, capsys):
    method = ["--decoding-method", "modified_beam_search", "--splits", "test"]
    assert score("decode", exp_dir, *method) == 0
    before = recogs(exp_dir, "modified_beam_search", "noise-test")
    phrases = tmp_path / "names.txt"
    phrases.write_text("qx\nVKV :2.5\n")
    assert score("decode", exp_dir, *method, "--hotwords-file", str(phrases)) == 0
    (path,) = (exp_dir / "modified_beam_search").glob("recogs-*-hotwords-names-score-1.5-*")
    after = path.read_text()
    assert before.count("QX") < after.count("QX")
    phrases.write_text("QX\nÄRGER\n")
    assert score("decode", exp_dir, *method, "--hotwords-file", str(phrases)) == 2
    assert (
        "names.txt line 2: the model's vocabulary cannot spell 'ÄRGER'"
        in (capsys.readouterr().err.splitlines()[-1])
    )
    assert score("decode", exp_dir, "--hotwords-file", str(phrases)) == 2


def test_an_experiment_that_is_not_there(tmp_path, capsys):
    assert score("decode", tmp_path / "nowhere") == 2
    err = capsys.readouterr().err
    assert "nowhere" in err and len(err.splitlines()) == 1


def _lm_method(exp_dir, monkeypatch, *, streaming=False):
    """Options of a rescoring method; what it recognises is counted."""
    save_tiny_lm(exp_dir / "lm", "rnn", load_experiment(exp_dir)[1])
    name = "streaming_decode" if streaming else "decode"
    module = importlib.import_module(
        "snowmelt.evaluate." + ("streaming" if streaming else "decode")
    )
    calls, recognise = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: (calls.append(1), recognise(*a, **k))[1])
    lm = ["--lm-type", "rnn", "--lm-exp-dir", str(exp_dir / "lm"), "--beam-size", "6"]
    return calls, [*lm, "--decoding-method", "modified_beam_search_lm_rescore"]


@pytest.mark.parametrize("command", ["decode", "streaming-decode"])
def test_one_decoding_serves_all_scales(exp_dir, command, monkeypatch, capsys):
    streaming = command == "streaming-decode"
    calls, options = _lm_method(exp_dir, monkeypatch, streaming=streaming)
    options += ["--splits", "dev", "--num-nbest", "3"]
    assert score(command, exp_dir, *options, "--lm-scale", "0,0.5,5") == 0
    assert len(calls) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[3:]] == [
        ["epoch", "avg", "method", "lm_scale"],
        *(["2", "2", "modified_beam_search_lm_rescore", scale] for scale in ("0", "0.5", "5")),
    ]
    folder = exp_dir / ("streaming" if streaming else "") / "modified_beam_search_lm_rescore"
    together = {path.name: path.read_text() for path in folder.glob("recogs-*")}
    lists = {path.name: json.loads(path.read_text()) for path in folder.glob("results-*.json")}
    assert len(together) == len(lists) == 3 and len(set(together.values())) > 1
    for path in folder.iterdir():
        path.unlink()
    for scale in ("0", "0.5", "5"):
        assert score(command, exp_dir, *options, "--lm-scale", scale) == 0
    assert {path.name: path.read_text() for path in folder.glob("recogs-*")} == together
    for path in folder.glob("results-*.json"):
        alone = json.loads(path.read_text())
        assert alone["utterances"] == lists[path.name]["utterances"]
