"""Writing bundles: whole or not at all, the same bytes every time, nothing overwritten."""

from pathlib import Path

import pytest

from snowmelt.cli.main import main
from snowmelt.core.errors import ConfigError
from snowmelt.export.bundle import BundleOptions
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.bundle import Bundle
from snowmelt.runtime.load import load_model, load_transducer
from snowmelt.runtime.load_bundle import bundle_tensors
from tests.runtime.bundles import CHOICE, bundled_experiment, make_bundle
from tests.runtime.tiny import TINY_LSTM, make_experiment


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory) -> Path:
    return bundled_experiment(tmp_path_factory.mktemp("exp"), TINY_LSTM)


def test_the_same_model_gives_the_same_bytes(exp_dir, tmp_path):
    files = [make_bundle(exp_dir, tmp_path / f"{n}.snowmelt", weights="onnx") for n in (1, 2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    folder = make_bundle(exp_dir, tmp_path / "folder", weights="onnx")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        name: Bundle(files[0]).read(name)
        for name in ("bundle.json", "tokens.txt", "encoder.onnx", "decoder.onnx", "joiner.onnx")
    } | {"SHA256SUMS": (folder / "SHA256SUMS").read_bytes()}


def test_the_command(exp_dir, tmp_path, capsys):
    path = tmp_path / "model.snowmelt"
    command = ["export", "--exp-dir", str(exp_dir), "--bundle", str(path)]
    options = ["--bundle-weights", "safetensors", "--decoding-method", "modified_beam_search"]
    assert main([*command, *options, "--blank-penalty", "0.5", "--license", "CC-BY-4.0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(path)
    facts = Bundle(path).facts
    assert (facts.search.decoding_method, facts.search.blank_penalty) == (
        "modified_beam_search",
        0.5,
    )
    assert facts.licence == "CC-BY-4.0" and facts.weights == ("safetensors",)
    # Nothing else is written, and the default is the newest average.
    assert not (exp_dir / "pretrained.pt").exists()
    assert facts.training.averaging is not None
    assert (facts.training.averaging.epoch, facts.training.averaging.avg) == (2, 2)
    assert facts.training.results == ()  # those in the folder are of another average
    assert main(["export", "--exp-dir", str(exp_dir), "--license", "CC0-1.0"]) == 2
    assert "add --bundle PATH" in capsys.readouterr().err


def test_weights_are_the_experiments_in_name_and_number(exp_dir, tmp_path):
    bundle = Bundle(make_bundle(exp_dir, tmp_path / "model", weights="safetensors"))
    own = load_transducer(exp_dir, weights=CHOICE, folded=False).model.state_dict()
    stored = bundle_tensors(bundle)
    assert stored.keys() == own.keys()
    assert all(bool((stored[key] == own[key]).all()) for key in own)


def test_other_things_are_not_overwritten(exp_dir, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder.snowmelt").mkdir()
    for name, reason in (
        ("folder", "not empty and holds no bundle"),
        ("file", "is a file"),
        ("folder.snowmelt", "asks for a file"),
    ):
        forms = Forms(bundle=BundleOptions(tmp_path / name))
        with pytest.raises(ConfigError, match=reason):
            list(export(Source(exp_dir), forms))
    assert (tmp_path / "folder" / "thesis.txt").exists()
    (tmp_path / "empty").mkdir()
    path = make_bundle(exp_dir, tmp_path / "empty", weights="safetensors")
    make_bundle(exp_dir, path, weights="safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "empty",
        "file",
        "folder",
        "folder.snowmelt",
    ]


def test_one_head_of_several(tmp_path):
    exp_dir = make_experiment(tmp_path / "exp", 1, "librispeech", model=TINY_LSTM, head="giga")
    options = BundleOptions(tmp_path / "model", weights="safetensors")
    list(export(Source(exp_dir, head="giga"), Forms(bundle=options)))
    model = load_model(tmp_path / "model", device="cpu")
    assert model.head == "giga"
