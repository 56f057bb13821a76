"""Checkpoints of the original's default size, as it would write them, through the public loader.

    pytest -m slow tests/parity/test_default_size.py [--golden DIR]

Names, shapes, order and kinds come from `keys/*.json`; the values from a seed. A checkpoint lies
alone with tokens.txt, so every dimension is inferred from the weights.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snowmelt import OnlineRecognizer, load_model
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.runtime.dimensions import check_dimensions
from snowmelt.runtime.load import load_transducer
from tests.runtime.tiny import noise

_SPECIAL = ("<blk>", "<sos/eos>", "<unk>")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    files = sorted((metafunc.config.getoption("golden") / "keys").glob("*.json"))
    metafunc.parametrize("keys_file", files, ids=[file.stem for file in files])


@pytest.mark.slow
def test_a_default_checkpoint_loads_and_recognises(keys_file: Path, tmp_path: Path) -> None:
    content = json.loads(keys_file.read_text(encoding="utf-8"))
    params = content["params"]
    weights = _weights(content["keys"])
    path = tmp_path / "pretrained.pt"
    save_checkpoint(path, {"model": weights})
    tokens = [*_SPECIAL, *(f"▁W{n}" for n in range(params["vocab_size"] - len(_SPECIAL)))]
    (tmp_path / "tokens.txt").write_text("".join(f"{t} {n}\n" for n, t in enumerate(tokens)))

    heads = ("main", "giga") if params.get("enable_giga") else ("main",)
    used = set()
    for head in heads:
        network = load_transducer(path, head=head, folded=False).model
        suffix = "" if head == "main" else f"_{head}"
        own, state = _of_head(weights, suffix, heads), network.state_dict()
        assert list(state) == list(own)
        for key, value in state.items():
            torch.testing.assert_close(value, weights[own[key]], rtol=0, atol=0)
        used |= {own[name] for name, _ in network.named_parameters()}
    assert sum(weights[key].numel() for key in used) == content["total_parameters"]

    model = load_model(path, device="cpu")
    options = {
        name: _number(value)
        for name, value in params["options"].items()
        if name != "subsampling_factor"
    }
    assert check_dimensions(model.dimensions, options, str(path)) == []
    recognizer = OnlineRecognizer(model)
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, noise(1.0))
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    result = recognizer.get_result_all(stream)
    assert result.is_final and np.isfinite(result.token_logprobs).all()


def _weights(keys: list[list[Any]]) -> dict[str, Tensor]:
    """Values like those of a training: matrices that keep a vector's size, no two layers equal."""
    generator = torch.Generator().manual_seed(20230207)
    weights = {}
    for key, shape, dtype, kind in keys:
        kind_of_number = getattr(torch, dtype)
        if kind == "buffer":
            weights[key] = torch.ones(shape, dtype=kind_of_number)
            continue
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        scale = fan_in**-0.5
        weights[key] = torch.randn(shape, generator=generator, dtype=kind_of_number) * scale
    return weights


def _of_head(weights: dict[str, Tensor], suffix: str, heads: tuple[str, ...]) -> dict[str, str]:
    """Name in a model with one head -> name in the checkpoint, in the checkpoint's order."""
    names = {}
    others = [f"_{head}" for head in heads if head != "main" and f"_{head}" != suffix]
    parts = ("decoder", "joiner", "simple_am_proj", "simple_lm_proj")
    for key in weights:
        top, _, rest = key.partition(".")
        if any(top == part + other for part in parts for other in others):
            continue
        if suffix and top in parts:
            continue  # the main head's
        names[f"{top.removesuffix(suffix)}.{rest}"] = key
    return names


def _number(value: Any) -> Any:
    return tuple(int(part) for part in value.split(",")) if isinstance(value, str) else value
