"""Are foreign weights loaded strictly, with one line that says what does not fit?"""

import pytest
import torch
from torch import nn

from snowmelt.checkpoint.icefall import load_icefall, state_dict_of
from snowmelt.core.errors import CheckpointError


class Model(nn.Module):
    def __init__(self, vocab_size=5):
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.decoder = nn.Embedding(vocab_size, 4)
        self.joiner = nn.Linear(4, vocab_size)


def equal(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("as_file", [True, False])
def test_loads(prefix, bare, as_file, tmp_path):
    trained, model = Model(), Model()
    weights = {prefix + key: value for key, value in trained.state_dict().items()}
    source = weights if bare else {"model": weights, "epoch": 3}
    if as_file:
        torch.save(source, tmp_path / "pretrained.pt")
        source = tmp_path / "pretrained.pt"
    load_icefall(source, model)
    assert equal(model, trained)


def refusal(source, model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_icefall(source, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return str(error.value)


def test_missing_and_unexpected(tmp_path):
    weights = Model().state_dict()
    weights["extra"] = weights.pop("encoder.bias")
    torch.save(weights, tmp_path / "pretrained.pt")
    text = refusal(tmp_path / "pretrained.pt", Model())
    assert "pretrained.pt does not fit the model" in text
    assert "1 missing (encoder.bias); 1 unexpected (extra)" in text
    assert "\n" not in text


def test_other_vocabulary():
    text = refusal(Model(vocab_size=7).state_dict(), Model())
    assert "3 of another shape (decoder.weight: (7, 4) instead of (5, 4), " in text
    assert "vocabulary" in text


def test_many_names_are_cut():
    text = refusal({"x": torch.ones(1)}, Model())
    assert "5 missing (encoder.weight, encoder.bias, decoder.weight, …); 1 unexpected (x)" in text


def test_encoder_only():
    weights = {k: v for k, v in Model().state_dict().items() if k.startswith("encoder.")}
    assert "encoder-only" in refusal(weights, Model())


@pytest.mark.parametrize("source", [{}, {"model": {}}, {"model": 3}, {"epoch": 3}])
def test_no_weights(source):
    assert "holds no weights" in refusal(source, Model())


def test_running_mean():
    weights = {"module.a": torch.ones(1)}
    assert list(state_dict_of({"model_avg": weights}, "x.pt", "model_avg")) == ["a"]
    with pytest.raises(CheckpointError, match=r"x\.pt holds no weights under 'model_avg'"):
        state_dict_of({"model": weights}, "x.pt", "model_avg")


def test_precision_is_the_models():
    model = Model()
    load_icefall({k: v.double() for k, v in Model().state_dict().items()}, model)
    assert model.encoder.weight.dtype is torch.float32
