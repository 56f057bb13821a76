"""Which language model is in a folder, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.runtime.load_lm import load_neural_lm
from snowmelt.text.tokenizer import build_words
from tests.runtime.tiny import make_experiment
from tests.runtime.tiny_lm import save_tiny_lm, tiny_lm

WORDS = build_words(["A B C"])


@pytest.fixture(params=["rnn", "transformer"])
def lm_type(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    save_tiny_lm(tmp_path, request.param, WORDS)
    return str(request.param)


def _row(lm_type: str, seed: int) -> torch.Tensor:
    with torch.inference_mode():
        return tiny_lm(lm_type, WORDS.vocab_size, seed=seed).score(torch.tensor([[1]]))[0][0, 0]


def test_epochs_are_chosen_as_asked(tmp_path: Path, lm_type: str) -> None:
    for options, seed in (({}, 1), ({"epoch": 2}, 2), ({"epoch": 1}, 1)):
        lm = load_neural_lm(tmp_path, lm_type, WORDS, **options)
        np.testing.assert_allclose(lm.scores([lm.start()])[0], _row(lm_type, seed), atol=1e-6)
    lm = load_neural_lm(tmp_path, lm_type, WORDS, avg=2)
    mean = lm._model.output.bias
    biases = [tiny_lm(lm_type, WORDS.vocab_size, seed=s).output.bias for s in (1, 2)]
    torch.testing.assert_close(mean, (biases[0] + biases[1]) / 2)
    (tmp_path / "best-valid-loss.pt").unlink()
    lm = load_neural_lm(tmp_path, lm_type, WORDS)
    np.testing.assert_allclose(lm.scores([lm.start()])[0], _row(lm_type, 2), atol=1e-6)


def test_what_does_not_fit_is_named(tmp_path: Path, lm_type: str) -> None:
    other = "transformer" if lm_type == "rnn" else "rnn"
    with pytest.raises(ConfigError, match=rf"is of type {lm_type}, not {other} \(hint: --lm-type"):
        load_neural_lm(tmp_path, other, WORDS)
    with pytest.raises(ConfigError, match="has other tokens than the transducer"):
        load_neural_lm(tmp_path, lm_type, build_words(["A B D"]))
    with pytest.raises(ConfigError, match=r"has num_layers 2, not 3 \(hint: leave the option out"):
        load_neural_lm(tmp_path, lm_type, WORDS, sizes={"vocab_size": 6, "num_layers": 3})
    with pytest.raises(CheckpointError, match=r"has no epoch-7\.pt"):
        load_neural_lm(tmp_path, lm_type, WORDS, epoch=7)
    weights = tiny_lm(lm_type, WORDS.vocab_size).state_dict()
    weights["output.bias"] = torch.full((6,), float("nan"))
    save_checkpoint(tmp_path / "epoch-2.pt", {"model": weights})
    with pytest.raises(CheckpointError, match=r"not finite numbers \(output\.bias\)"):
        load_neural_lm(tmp_path, lm_type, WORDS, epoch=2)


def test_models_from_elsewhere_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "lm" / "epoch-7.pt", {"model": {"a": torch.ones(2)}})
    with pytest.raises(CheckpointError, match="holds no language model of snowmelt.*train-lm"):
        load_neural_lm(tmp_path / "lm", "rnn", WORDS)
    exp_dir = make_experiment(tmp_path / "exp", num_epochs=1)
    with pytest.raises(CheckpointError, match="holds no language model, but another experiment"):
        load_neural_lm(exp_dir, "rnn", WORDS)
