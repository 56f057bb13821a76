"""No file of ours runs with another vocabulary than the one it was made with."""

import shutil
from pathlib import Path

import pytest

from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.core.errors import CheckpointError, DataError
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.load import WeightsChoice, load_model
from snowmelt.runtime.vocabulary import tokenizer_beside
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_LSTM, tiny_tokenizer

_MODELS = ("cpu_jit.pt", "encoder_jit_trace.pt", "encoder-pretrained.onnx", "pretrained.pt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    exp_dir = noisy_experiment(tmp_path_factory.mktemp("exp"), TINY_LSTM)
    folder = tmp_path_factory.mktemp("exported")
    list(export(Source(exp_dir), Forms(jit=True, jit_trace=True, onnx=True), folder))
    save_checkpoint(exp_dir / "epoch-1.pt", load_checkpoint(exp_dir / "pretrained.pt"))
    list(export(Source(exp_dir, WeightsChoice(1, 0, 1, False)), Forms(), folder))
    return folder


@pytest.mark.parametrize("name", _MODELS)
def test_tokens_in_another_order_are_refused(exported, tmp_path, name):
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    assert load_model(folder / name, device="cpu").tokenizer.vocab_size == 30
    path = folder / "tokens.txt"
    tokens = [line.split()[0] for line in path.read_text().splitlines()]
    tokens[7], tokens[8] = tokens[8], tokens[7]
    path.write_text("".join(f"{token} {i}\n" for i, token in enumerate(tokens)))
    with pytest.raises(CheckpointError, match=rf"for .*{name} has other tokens, or another"):
        load_model(folder / name, device="cpu")


def test_sample_rate_and_tail_travel_along(exported, tmp_path):
    exp_dir = noisy_experiment(tmp_path / "exp", TINY_LSTM)
    config = (
        (exp_dir / "config.yaml").read_text().replace("sample_rate: 16000", "sample_rate: 8000")
    )
    (exp_dir / "config.yaml").write_text(config.replace("min_tail_s: 0.4", "min_tail_s: 0.5"))
    list(export(Source(exp_dir), Forms(jit=True, onnx=True), tmp_path / "out"))
    for name in ("cpu_jit.pt", "encoder-pretrained.onnx"):
        model = load_model(tmp_path / "out" / name)
        assert (model.features.sample_rate, model.min_tail_s) == (8000, 0.5)
        model = load_model(exported / name)
        assert (model.features.sample_rate, model.min_tail_s) == (16000, 0.4)


def test_a_published_repository_has_it_in_another_folder(tmp_path):
    model = tmp_path / "exp" / "pretrained.pt"
    model.parent.mkdir()
    with pytest.raises(DataError, match=r"tokens\.txt does not exist"):
        tokenizer_beside(model)
    tiny_tokenizer().save(tmp_path / "data" / "lang_char")
    assert tokenizer_beside(model).vocab_size == 30
    tiny_tokenizer().save(tmp_path / "data" / "lang_other")
    with pytest.raises(DataError, match="several vocabularies: lang_char, lang_other"):
        tokenizer_beside(model)
