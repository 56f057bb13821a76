"""A model of which something was changed, cut or lost: the loader and the doctor say so in a line.

What the doctor says of each metadata key is in `test_doctor.py`, of bundles in `test_bundle.py`.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
import torch

from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.core.errors import UserError
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.doctor import find_problems
from snowmelt.runtime.load import load_model
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS

_LSTM = pytest.param("lstm")
_ZIPFORMER = pytest.param("zipformer", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[_LSTM, _ZIPFORMER])
def exp_dir(request, tmp_path_factory) -> Path:
    """An experiment with every form of TorchScript in it."""
    folder = noisy_experiment(tmp_path_factory.mktemp("exp"), TINY_MODELS[request.param])
    list(export(Source(folder), Forms(jit=True, jit_trace=True)))
    return folder


@pytest.fixture(scope="module")
def onnx_dir(exp_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    list(export(Source(exp_dir), Forms(onnx=True), folder))
    return folder


def _line(path: Path) -> str:
    """What the loader says; the doctor has one line, too."""
    with pytest.raises(UserError) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)
    (problem,) = find_problems(path)
    assert problem.what and "\n" not in str(problem)
    return str(caught.value)


def _metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def _with_metadata(path: Path, entries: dict[str, str]) -> bytes:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    content: bytes = model.SerializeToString()
    return content


def _mutations(right: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    for key, value in right.items():
        yield key, {k: v for k, v in right.items() if k != key}
        for wrong in ("", "x", "-1", "0", "nan", f"{value}0", f"{value},{value}"):
            yield key, {**right, key: wrong}


# What the loader needs; all else of the metadata only other runtimes read.
_NEEDED = ("model_type", "decode_chunk_len", "T", "context_size", "vocab_size")


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
def test_every_metadata_key(onnx_dir, part, tmp_path):
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "copy"))
    path = folder / f"{part}-pretrained.onnx"
    right, refused = _metadata(path), set()
    for key, entries in _mutations(right):
        path.write_bytes(_with_metadata(onnx_dir / path.name, entries))
        try:
            load_model(folder)
            assert key not in _NEEDED, entries
        except UserError as error:
            assert "\n" not in str(error) and str(folder) in str(error), str(error)
            refused.add(key)
        for problem in find_problems(folder):
            assert "\n" not in str(problem)
    assert refused >= set(_NEEDED) & set(right)


def test_vocabularies(onnx_dir, tmp_path):
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "copy"))
    path = folder / "tokens.txt"
    tokens = [line.split()[0] for line in path.read_text().splitlines()]

    def write(new: list[str]) -> None:
        path.write_text("".join(f"{token} {i}\n" for i, token in enumerate(new)))

    write([*tokens[:3], *reversed(tokens[3:])])
    assert "order" in _line(folder) or "other" in _line(folder)
    write([*tokens[:5], tokens[6], tokens[5], *tokens[7:]])
    _line(folder)
    write(tokens[:-1])
    assert "has 30 tokens, the vocabulary" in _line(folder)
    write([*tokens, "Ä"])
    assert "has 30 tokens, the vocabulary" in _line(folder)
    write(list(reversed(tokens)))
    assert "begins with" in _line(folder)
    path.write_text(path.read_text()[:37])
    _line(folder)
    path.unlink()
    assert "tokens.txt" in _line(folder)


@pytest.mark.parametrize(
    "name", ["pretrained.pt", "cpu_jit.pt", *(f"{p}_jit_trace.pt" for p in ("encoder", "decoder"))]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_weights(exp_dir, name, share, tmp_path):
    folder = Path(shutil.copytree(exp_dir, tmp_path / "copy"))
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    asked = folder / "encoder_jit_trace.pt" if "trace" in name else path
    assert path.name in _line(asked)


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_graphs(onnx_dir, part, share, tmp_path):
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "copy"))
    path = folder / f"{part}-pretrained.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert path.name in _line(folder)


def test_a_folder_without_a_file(exp_dir, onnx_dir, tmp_path):
    for source, lost, asked in (
        *((onnx_dir, f"{p}-pretrained.onnx", "") for p in ("decoder", "joiner")),
        (exp_dir, "pretrained.pt", ""),
        (exp_dir, "pretrained.pt", "pretrained.pt"),
        *((exp_dir, f"{p}_jit_trace.pt", "encoder_jit_trace.pt") for p in ("decoder", "joiner")),
        *((exp_dir, "lang", name) for name in ("", "pretrained.pt", "cpu_jit.pt")),
        (exp_dir, "lang/tokens.txt", ""),
        (exp_dir, "lang/tokenizer.yaml", ""),
    ):
        folder = Path(shutil.copytree(source, tmp_path / "copy"))
        (shutil.rmtree if (folder / lost).is_dir() else Path.unlink)(folder / lost)
        assert str(folder) in _line(folder / asked), lost
        shutil.rmtree(folder)


_Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("joiner.output_linear.bias"),
        lambda weights: weights.update({"joiner.other": torch.zeros(1)}),
        lambda weights: weights.update({"decoder.embedding.weight": torch.zeros(29, 16)}),
        lambda weights: weights.update({"decoder.embedding.weight": torch.zeros(0)}),
        lambda weights: weights.update({"joiner.output_linear.bias": torch.full((30,), torch.nan)}),
        lambda weights: weights.update({"joiner.output_linear.bias": "zeros"}),
        lambda weights: [weights.pop(key) for key in list(weights) if key.startswith("encoder.")],
        lambda weights: [weights.pop(key) for key in list(weights) if "layers" in key],
        lambda weights: weights.clear(),
    ],
)
@pytest.mark.parametrize("is_alone", [False, True])
def test_other_weights(exp_dir, change: Callable[[_Weights], object], is_alone, tmp_path):
    """With config.yaml, and with nothing but the shapes to go by."""
    weights = load_checkpoint(exp_dir / "pretrained.pt")["model"]
    change(weights)
    folder = tmp_path / "copy"
    if is_alone:
        shutil.copytree(exp_dir / "lang", folder)
    else:
        shutil.copytree(exp_dir, folder)
    save_checkpoint(folder / "pretrained.pt", {"model": weights})
    assert "pretrained.pt" in _line(folder / "pretrained.pt")
