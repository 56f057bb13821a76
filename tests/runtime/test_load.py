"""Loading: which files make the model, and what is said when they do not."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.load import WeightsChoice, load_model
from snowmelt.text.tokenizer import build_words
from tests.runtime.tiny import TINY, TINY_LSTM, TINY_MODELS, make_experiment, tiny_weights


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("exp"))


def _weight(model: SpeechModel) -> torch.Tensor:
    return model.backend._encoder_proj.weight


def _weight_of(seed: int) -> torch.Tensor:
    return _folded(tiny_weights(seed))


def _folded(weights: dict[str, torch.Tensor], module: str = "joiner.encoder_proj") -> torch.Tensor:
    """The weight that a module works with, whether it has a scale or not."""
    for scale in (f"{module}.weight_scale", f"{module}.scale"):
        if scale in weights:
            return weights[f"{module}.weight"] * weights[scale].exp()
    return weights[f"{module}.weight"]


@pytest.mark.parametrize("encoder", list(TINY_MODELS))
def test_a_folder_gives_the_newest_average(encoder, tmp_path):
    config = TINY_MODELS[encoder]
    make_experiment(tmp_path, num_epochs=2, model=config)
    # Epochs 1 and 2 from the start on: the running mean of the last file.
    model = load_model(tmp_path, device="cpu")
    torch.testing.assert_close(_weight(model), _folded(tiny_weights(102, config)))
    assert model.backend.decode_chunk_len == 32 and model.min_tail_s == 0.4
    assert model.backend.front_end == config.front_end
    assert not model.backend._encoder.training
    assert model.weights == f"{tmp_path}, mean of all models up to epoch-2.pt"
    assert load_model(tmp_path, decode_chunk_len=64).backend.decode_chunk_len == 64


def test_a_file_is_taken_as_it_is(exp_dir):
    model = load_model(exp_dir / "epoch-2.pt", device="cpu")
    torch.testing.assert_close(_weight(model), _weight_of(2))


def test_plain_and_running_averages(exp_dir):
    plain = WeightsChoice(epoch=2, avg=2, use_averaged_model=False)
    torch.testing.assert_close(
        _weight(load_model(exp_dir, weights=plain)), (_weight_of(1) + _weight_of(2)) / 2
    )
    running = WeightsChoice(epoch=3, avg=1)
    torch.testing.assert_close(
        _weight(load_model(exp_dir, weights=running)),
        3 * _weight_of(103) - 2 * _weight_of(102),
        rtol=1e-5,
        atol=1e-5,
    )


def test_pretrained_is_taken_unless_a_choice_is_made(exp_dir, tmp_path):
    exp_dir = Path(shutil.copytree(exp_dir, tmp_path / "exp"))
    save_checkpoint(exp_dir / "pretrained.pt", {"model": tiny_weights(7)})
    torch.testing.assert_close(_weight(load_model(exp_dir)), _weight_of(7))
    chosen = load_model(exp_dir, weights=WeightsChoice())
    torch.testing.assert_close(_weight(chosen), _weight_of(103))


def test_choices_are_filled_in(exp_dir, tmp_path):
    assert WeightsChoice().resolved(exp_dir) == WeightsChoice(epoch=3, avg=3)
    assert WeightsChoice(epoch=2).resolved(exp_dir) == WeightsChoice(epoch=2, avg=2)
    for number in (12, 14, 15):
        (tmp_path / f"epoch-{number}.pt").touch()
    # Older epochs were deleted: what is left is averaged.
    assert WeightsChoice().resolved(tmp_path).avg == 3
    assert WeightsChoice(use_averaged_model=False).resolved(tmp_path).avg == 2
    assert WeightsChoice(epoch=12).resolved(tmp_path).avg == 9
    for path in tmp_path.glob("epoch-*.pt"):
        path.unlink()
    assert WeightsChoice(epoch=30, avg=9).resolved(exp_dir) == WeightsChoice(epoch=30, avg=9)
    for number in (100, 200, 300, 400):
        (tmp_path / f"checkpoint-{number}.pt").touch()
    assert WeightsChoice(iteration=300).resolved(tmp_path).avg == 2
    plain = WeightsChoice(iteration=300, use_averaged_model=False)
    assert plain.resolved(tmp_path).avg == 3
    with pytest.raises(CheckpointError, match=r"has no epoch-N\.pt"):
        WeightsChoice().resolved(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is no folder"):
        WeightsChoice().resolved(tmp_path / "nowhere")


@pytest.mark.parametrize("encoder", list(TINY_MODELS))
def test_the_head_of_another_corpus_may_be_chosen(encoder, tmp_path):
    config = TINY_MODELS[encoder]
    make_experiment(tmp_path, num_epochs=2, corpus="librispeech", model=config, head="giga")
    weights = tiny_weights(102, config, "giga")
    for head, suffix in (("main", ""), ("libri", ""), ("giga", "_giga")):
        model = load_model(tmp_path, head=head)
        assert model.head == ("giga" if suffix else "main")
        scorer = model.backend.scorer
        for module, weight in (
            (f"joiner{suffix}.encoder_proj", _weight(model)),
            (f"joiner{suffix}.output_linear", scorer._joiner.output_linear.weight),
        ):
            torch.testing.assert_close(weight, _folded(weights, module))
        embedding = _folded(weights, f"decoder{suffix}.embedding")
        taps = _folded(weights, f"decoder{suffix}.conv")  # (D, D / groups, 2)
        newest = torch.zeros(*embedding.shape, 2)
        newest[:, :, 1] = embedding
        table = torch.nn.functional.conv1d(newest, taps, groups=len(taps) // taps.shape[1])
        torch.testing.assert_close(scorer._tables[1][:-1], table[:, :, 0])
    with pytest.raises(CheckpointError, match=r"no head 'ted' \(hint: choose main, giga\)"):
        load_model(tmp_path, head="ted")
    plain = WeightsChoice(epoch=2, avg=2, use_averaged_model=False)
    first, second = (tiny_weights(epoch, config, "giga") for epoch in (1, 2))
    mean = {key: (value + second[key]) / 2 for key, value in first.items()}
    averaged = load_model(tmp_path, weights=plain, head="giga")
    torch.testing.assert_close(_weight(averaged), _folded(mean, "joiner_giga.encoder_proj"))
    assert load_model(tmp_path / "epoch-1.pt", head="giga").head == "giga"


def test_a_head_with_a_missing_part_is_refused(exp_dir, tmp_path):
    other = Path(shutil.copytree(exp_dir, tmp_path / "other"))
    weights = tiny_weights(1, TINY, "giga")
    weights = {key: value for key, value in weights.items() if not key.startswith("joiner_giga.")}
    save_checkpoint(other / "epoch-4.pt", {"model": weights})
    with pytest.raises(CheckpointError, match=r"unexpected \(decoder_giga\.embedding\.weight"):
        load_model(other / "epoch-4.pt")


def test_what_is_wrong_is_said(exp_dir, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="must be a multiple of 16"):
        load_model(exp_dir, decode_chunk_len=20)
    make_experiment(tmp_path / "lstm", num_epochs=1, model=TINY_LSTM)
    with pytest.raises(ConfigError, match="must be a multiple of 4"):
        load_model(tmp_path / "lstm", decode_chunk_len=18)
    with pytest.raises(CheckpointError, match=r"has no epoch-9\.pt"):
        load_model(exp_dir, weights=WeightsChoice(epoch=9, avg=1, use_averaged_model=False))
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_model(tmp_path)
    other = Path(shutil.copytree(exp_dir, tmp_path / "other"))
    save_checkpoint(other / "encoder.pt", {"model": {"encoder.x": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_model(other / "encoder.pt")
    build_words(["ANOTHER VOCABULARY"]).save(other / "lang")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub("vocabulary_hash: .*", "", config))
    with pytest.raises(CheckpointError, match=r"other, mean .* epoch-3\.pt does not fit the model"):
        load_model(other)


def test_weights_of_a_diverged_training_are_refused(exp_dir, tmp_path):
    other = Path(shutil.copytree(exp_dir, tmp_path / "other"))
    weights = tiny_weights(5)
    weights["joiner.output_linear.bias"][3] = float("nan")
    save_checkpoint(other / "epoch-4.pt", {"model": weights})
    with pytest.raises(CheckpointError, match=r"epoch-4\.pt are not finite.*output_linear\.bias"):
        load_model(other / "epoch-4.pt")
    # The scale of an LSTM's weight may be finite when the weight is not.
    other = make_experiment(tmp_path / "lstm", num_epochs=0, model=TINY_LSTM)
    weights = tiny_weights(5, TINY_LSTM)
    weights["joiner.output_linear.weight_scale"] = torch.tensor(200.0)
    save_checkpoint(other / "epoch-1.pt", {"model": weights})
    with pytest.raises(CheckpointError, match=r"not finite numbers .joiner\.output_linear\.weight"):
        load_model(other / "epoch-1.pt")
