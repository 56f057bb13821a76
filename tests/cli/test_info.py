"""`snowmelt info`: every kind of file is explained, everything else refused in one line."""

import json
from pathlib import Path

import pytest

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.cli.main import main
from snowmelt.export.run import Forms, Source, export
from snowmelt.text.tokenizer import vocabulary_hash
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_LSTM, make_experiment, tiny_tokenizer, tiny_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An LSTM as an experiment, and what is exported of it."""
    exp_dir = noisy_experiment(tmp_path_factory.mktemp("lstm"), TINY_LSTM)
    list(export(Source(exp_dir), Forms(jit=True, jit_trace=True, onnx=True), exp_dir / "out"))
    return exp_dir


def _facts(path: Path, capsys) -> dict:
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(path)
    return facts


def test_an_experiment(tmp_path, capsys):
    make_experiment(tmp_path, num_epochs=2)
    facts = _facts(tmp_path, capsys)
    assert facts["kind"] == "experiment" and facts["epochs"] == [1, 2]
    assert facts["model"]["decode_chunk_len"] == 32
    assert facts["vocabulary"]["hash"] == vocabulary_hash(tiny_tokenizer())
    assert facts["newest"]["training"] == {"batch_idx_train": 20, "average_period": 5}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_that_come_alone(tmp_path, capsys, prefix):
    weights = tiny_weights(model=TINY_LSTM)
    path = tmp_path / "pretrained.pt"
    save_checkpoint(path, {"model": {f"{prefix}{k}": v for k, v in weights.items()}})
    facts = _facts(path, capsys)
    assert facts["kind"] == "checkpoint" and facts["finite"] is True
    assert facts["model"]["encoder"] == "lstm" and facts["model"]["rnn_hidden_size"] == 24
    assert facts["model"]["vocab_size"] == 30
    assert facts["parameters"] == sum(v.numel() for v in weights.values() if v.is_floating_point())
    assert facts["vocabulary"] is None


def test_exported_files(folder, capsys):
    out = folder / "out"
    facts = _facts(out, capsys)
    assert facts["kind"] == "onnx folder" and facts["vocabulary"]["size"] == 30
    assert len(facts["files"]) == 3
    encoder = _facts(out / "encoder-pretrained.onnx", capsys)
    assert encoder["metadata"]["model_type"] == "lstm" and encoder["metadata"]["T"] == "37"
    assert any(line.startswith("state0 tensor(float)") for line in encoder["inputs"])
    script = _facts(out / "cpu_jit.pt", capsys)
    assert (script["form"], script["encoder"]) == ("whole model", "lstm")
    assert _facts(out / "joiner_jit_trace.pt", capsys)["form"] == "joiner"
    assert _facts(out / "tokens.txt", capsys)["vocabulary"]["size"] == 30


def test_text_has_a_line_for_each_fact(folder, capsys):
    assert main(["info", str(folder / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "kind: onnx folder" in lines and "    model_type: lstm" in lines
    assert "  size: 30" in lines


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pt", b"", "is empty"),
        ("a.onnx", b"nothing", "no model that ONNX Runtime can load"),
        ("a.pt", b"PK\x03\x04 and no more", "truncated or damaged"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("a.bin", b"nothing", "no file of a model"),
        ("tokens.txt", b"a b c d\n", "every line must be a token"),
        ("bpe.model", b"nothing", "no sentencepiece model"),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path, capsys, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert main(["info", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and len(err.splitlines()) == 1


def test_nothing_there_and_an_empty_folder(tmp_path, capsys):
    for path, reason in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no model")):
        assert main(["info", str(path)]) == 2
        err = capsys.readouterr().err
        assert reason in err and len(err.splitlines()) == 1
