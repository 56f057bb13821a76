"""The doctor: a healthy model has no problem, every mutation of it gives clear lines."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.cli.main import main
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.doctor import find_problems
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS

_KEYS = {
    "zipformer": [
        *("model_type", "decode_chunk_len", "T", "num_encoder_layers", "encoder_dims"),
        *("attention_dims", "cnn_module_kernels", "left_context_len"),
    ],
    "lstm": [
        *("model_type", "decode_chunk_len", "T", "num_encoder_layers", "d_model"),
        "rnn_hidden_size",
    ],
}


@pytest.fixture(scope="module", params=list(TINY_MODELS))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def exp_dir(family, tmp_path_factory) -> Path:
    return noisy_experiment(tmp_path_factory.mktemp(family), TINY_MODELS[family])


@pytest.fixture(scope="module")
def exported(exp_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    list(export(Source(exp_dir), Forms(onnx=True), folder))
    return folder


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def _change(folder: Path, part: str, key: str, value: str | None) -> None:
    path = folder / f"{part}-pretrained.onnx"
    model = onnx.load(path)
    entries = {e.key: e.value for e in model.metadata_props}
    if value is None:
        del entries[key]
    else:
        entries[key] = value
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)


def _only_line(folder: Path, capsys) -> str:
    assert main(["doctor", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 1
    return out


def test_healthy(exp_dir, exported, capsys):
    for path in (exp_dir, exported, exported / "joiner-pretrained.onnx", exported / "tokens.txt"):
        assert main(["doctor", str(path)]) == 0, capsys.readouterr().out
        assert capsys.readouterr().out == f"{path}: healthy\n"


def test_every_key_of_the_metadata(family, copy, capsys):
    keys = [("encoder", key) for key in _KEYS[family]]
    keys += [("decoder", "context_size"), ("decoder", "vocab_size"), ("joiner", "joiner_dim")]
    for part, key in keys:
        model = onnx.load(copy / f"{part}-pretrained.onnx")
        right = {e.key: e.value for e in model.metadata_props}[key]
        _change(copy, part, key, None)
        assert f"no '{key}' in its metadata, it must be {right}" in _only_line(copy, capsys)
        for wrong in ("7x", "1000", ""):
            _change(copy, part, key, wrong)
            assert f"{key} is '{wrong}', its graph takes {right}" in _only_line(copy, capsys)
        _change(copy, part, key, right)
    assert find_problems(copy) == []


def test_the_tail(copy, capsys):
    for wrong in ("nothing", "-1", "nan"):
        _change(copy, "encoder", "min_tail_s", wrong)
        assert f"min_tail_s is '{wrong}'" in _only_line(copy, capsys)


def test_tokens_that_are_not_the_models(copy, capsys):
    lines = (copy / "tokens.txt").read_text().splitlines()
    tokens = [line.split()[0] for line in lines]

    def write(new: list[str]) -> None:
        text = "".join(f"{token} {i}\n" for i, token in enumerate(new))
        (copy / "tokens.txt").write_text(text)

    write([*tokens[:3], *reversed(tokens[3:])])
    assert "other tokens or another order" in _only_line(copy, capsys)
    write(tokens[:-4])
    assert "has 30 tokens, the vocabulary beside it 26" in _only_line(copy, capsys)
    (copy / "tokens.txt").write_text("\n".join(lines[:5] + lines[6:]))
    assert "leaves out ids" in _only_line(copy, capsys)
    (copy / "tokens.txt").unlink()
    assert "tokens.txt" in _only_line(copy, capsys)


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
def test_a_file_of_the_folder(exported, copy, part, capsys):
    path = copy / f"{part}-pretrained.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "no model that ONNX Runtime can load" in _only_line(copy, capsys)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git-lfs pointer" in _only_line(copy, capsys)
    path.unlink()
    assert f"{part}-pretrained.onnx does not exist" in _only_line(copy, capsys)


def test_weights_that_are_not_numbers(copy, capsys):
    for part in ("encoder", "decoder", "joiner"):
        path = copy / f"{part}-pretrained.onnx"
        content = path.read_bytes()
        model = onnx.load(path)
        weights = [w for w in model.graph.initializer if w.data_type == 1 and len(w.dims) > 1]
        values = numpy_helper.to_array(weights[-1]).copy()
        values.flat[:] = np.nan
        weights[-1].CopyFrom(numpy_helper.from_array(values, weights[-1].name))
        onnx.save(model, path)
        assert "gives NaN or infinity" in _only_line(copy, capsys)
        path.write_bytes(content)


def test_a_checkpoint_that_has_diverged(exp_dir, tmp_path, capsys):
    folder = Path(shutil.copytree(exp_dir, tmp_path / "exp"))
    weights = load_checkpoint(folder / "pretrained.pt")["model"]
    weights["joiner.output_linear.bias"][3] = torch.inf
    save_checkpoint(folder / "pretrained.pt", {"model": weights})
    assert "not finite numbers" in _only_line(folder, capsys)


def test_an_experiment_with_another_vocabulary(exp_dir, tmp_path, capsys):
    folder = Path(shutil.copytree(exp_dir, tmp_path / "exp"))
    path = folder / "lang" / "tokens.txt"
    text = path.read_text()
    path.write_text(text.replace("A ", "Z9 ", 1))
    assert "another vocabulary" in _only_line(folder, capsys)
    path.unlink()
    assert "tokens.txt does not exist" in _only_line(folder, capsys)


def test_an_offline_model(copy, capsys):
    """An encoder without states."""
    joiner = copy / "joiner-pretrained.onnx"
    shutil.copy(joiner, copy / "encoder-pretrained.onnx")
    assert "it is an offline model" in _only_line(copy, capsys)


def test_the_machine(capsys):
    assert main(["doctor"]) == 0
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"snowmelt", "torch", "onnxruntime", "CPU extensions", "threads", "used"} <= set(names)
