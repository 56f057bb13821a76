"""`snowmelt frontier`: all combinations once, and never again without need."""

import json
import shutil

import pytest

from snowmelt.cli.main import main
from snowmelt.core.config import dump_yaml, load_yaml
from snowmelt.evaluate import streaming
from tests.cli.scored import score, scored_experiment


@pytest.fixture
def exp_dir(tmp_path, monkeypatch):
    yield from scored_experiment(tmp_path, monkeypatch)


@pytest.fixture
def decoded(monkeypatch):
    """Chunk lengths of the test sets that were really decoded."""
    lens = []
    original = streaming.streaming_decode

    def counting(recognizer, *args, **kwargs):
        lens.append(recognizer.decode_chunk_len)
        return original(recognizer, *args, **kwargs)

    monkeypatch.setattr(streaming, "streaming_decode", counting)
    return lens


def _draw(exp_dirs, *words):
    top = exp_dirs[0].parent
    options = ["--data-dir", str(top / "data"), "--device", "cpu", "--splits", "dev"]
    options += ["--output-dir", str(top / "out"), "--exp-dir", *map(str, exp_dirs)]
    return main(["frontier", *options, *words])


def test_all_combinations_are_measured_once(exp_dir, decoded, capsys):
    second = exp_dir.parent / "second"
    shutil.copytree(exp_dir, second)
    settings = load_yaml(second / "config.yaml")
    settings["train"]["delay_penalty"] = 0.01
    (second / "config.yaml").write_text(dump_yaml(settings))
    methods = ["--decoding-method", "greedy_search,modified_beam_search"]
    words = ["--decode-chunk-len", "16,32", *methods]
    assert _draw([exp_dir, second], *words) == 0
    assert decoded == [16, 16, 32, 32] * 2
    table = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert len(table) == 9 and table[0][0] == "test set"
    folder = exp_dir.parent / "out"
    points = json.loads((folder / "frontier.json").read_text())["points"]
    assert [(p["model"], p["decode_chunk_len"], p["search"]) for p in points] == [
        (model, chunk, method)
        for model in ("exp", "second, delay penalty 0.01")
        for chunk in (16, 32)
        for method in ("greedy_search", "modified_beam_search")
    ]
    assert {path.name for path in folder.iterdir()} == {
        f"frontier.{suffix}" for suffix in ("html", "json", "png")
    }
    assert _draw([exp_dir, second], *words) == 0
    assert len(decoded) == 8
    assert json.loads((folder / "frontier.json").read_text())["points"] == points
    assert _draw([exp_dir], "--decode-chunk-len", "16", "--force") == 0
    assert decoded[8:] == [16]


def test_what_has_changed_is_measured_again(exp_dir, decoded, capsys):
    assert score("streaming-decode", exp_dir, "--splits", "dev", "--latency") == 0
    assert _draw([exp_dir]) == 0
    assert decoded == [32]
    # Another setting of the search whose files have the same name, other weights, other files.
    assert _draw([exp_dir], "--lm-scale", "0.4") == 0
    assert len(decoded) == 2
    shutil.copy(exp_dir / "epoch-1.pt", exp_dir / "epoch-2.pt")
    assert _draw([exp_dir]) == 0
    assert len(decoded) == 3
    assert score("streaming-decode", exp_dir, "--splits", "dev", "--latency") == 0
    assert len(decoded) == 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--decode-chunk-len", "16,24"], "must be a multiple of 16"),
        (["--avg", "1,2"], "--avg takes one number here"),
        (["--decoding-method", "magic"], "unknown decoding method"),
        (["--decode-chunk-len", "x"], "not a whole number"),
    ],
)
def test_mistakes_are_one_line_before_any_work(exp_dir, decoded, words, reason, capsys):
    assert _draw([exp_dir], *words) == 2
    err = capsys.readouterr().err
    assert reason in err and len(err.splitlines()) == 1
    assert decoded == [] and not (exp_dir.parent / "out").exists()
