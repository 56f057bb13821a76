"""What export writes: the inference forms are exact, files have icefall's interface and names."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.cli.main import main
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.export.inference import InferenceTransducer
from snowmelt.export.run import Forms, Source, export
from snowmelt.models.build import build_transducer
from snowmelt.models.lstm.state import state_to_flat as lstm_to_flat
from snowmelt.models.scaled_layers import fold_scales
from snowmelt.models.zipformer.flat_state import state_to_flat
from snowmelt.presets.models import LstmConfig, ZipformerConfig
from snowmelt.runtime.load import load_model, load_transducer
from tests.contract.tiny_lstm import tiny_lstm
from tests.contract.tiny_zipformer import tiny_zipformer
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS, make_experiment, tiny_tokenizer, tiny_weights

_GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("left_chunks", [1, 4])
@pytest.mark.parametrize("scripted", [False, True])
def test_the_form_that_only_recognises_is_exact(left_chunks, scripted):
    """In float64: ragged lengths, last windows that are cut off, and the states in between."""
    encoder = tiny_zipformer(num_left_chunks=left_chunks)
    form = _inference_form(encoder)
    if scripted:
        form = _quietly(torch.jit.script, form)
    x = torch.randn(3, 100, 12, dtype=torch.float64)
    lens = torch.tensor([100, 43, 71])
    with torch.inference_mode():
        whole, whole_lens = encoder(x, lens)
        out, out_lens = form.non_streaming_forward(x, lens)
        assert out_lens.tolist() == whole_lens.tolist()
        for n, length in enumerate(whole_lens):
            torch.testing.assert_close(out[n, :length], whole[n, :length], atol=1e-10, rtol=0)
        state, flat = encoder.init_state(3), form.get_init_states(3, torch.device("cpu"))
        for begin in range(0, 96, 16):
            window, window_lens = x[:, begin : begin + 23], (lens - begin).clamp(min=0, max=23)
            expected, expected_lens, state = encoder.stream(window, window_lens, state)
            out, out_lens, flat = form(window, window_lens, flat)
            assert out_lens.tolist() == expected_lens.tolist()
            for n, length in enumerate(expected_lens):
                torch.testing.assert_close(
                    out[n, :length], expected[n, :length], atol=1e-10, rtol=0
                )
            torch.testing.assert_close(flat, state_to_flat(state), atol=1e-10, rtol=0)


def _quietly(function, argument):
    """torch recommends torch.export in place of these functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return function(argument)


def _inference_form(encoder):
    from snowmelt.export.zipformer.encoder import InferenceZipformer

    return InferenceZipformer(encoder).eval()


def test_the_lstm_that_only_recognises_is_exact():
    from snowmelt.export.lstm import InferenceLstm

    encoder = tiny_lstm()
    fold_scales(encoder)
    form = InferenceLstm(encoder).eval()
    x = torch.randn(3, 61, 12, dtype=torch.float64)
    lens = torch.tensor([61, 8, 30])
    with torch.inference_mode():
        expected, expected_lens, state = encoder.stream(x, lens, encoder.init_state(3))
        out, out_lens, flat = form(x, lens, form.get_init_states(3))
    assert out_lens.tolist() == expected_lens.tolist()
    for n, length in enumerate(expected_lens):
        torch.testing.assert_close(out[n, :length], expected[n, :length], atol=1e-10, rtol=0)
    torch.testing.assert_close(flat, lstm_to_flat(state), atol=1e-10, rtol=0)


def test_a_scripted_zipformer_has_icefalls_interface(tmp_path):
    folder = noisy_experiment(tmp_path, TINY_MODELS["zipformer"])
    (written,) = export(Source(folder), Forms(jit=True))
    assert written.files == (folder / "cpu_jit.pt",)
    script = _quietly(torch.jit.load, folder / "cpu_jit.pt")
    encoder = script.encoder
    assert encoder.decode_chunk_size == 16 and script.decoder.context_size == 2
    assert [tuple(s.shape) for s in encoder.get_init_state()][10:15] == [
        (1, left, 1, 16) for left in (64, 32, 16, 8, 32)
    ]
    encoder.decode_chunk_size = 8
    assert encoder.get_init_state()[10].shape == (1, 32, 1, 16)
    # Drivers pass need_pad as a tensor.
    y = torch.tensor([[-1, 0]])
    assert script.decoder(y, torch.tensor([False])).shape == (1, 1, 16)
    assert script.joiner(torch.zeros(1, 24), torch.zeros(1, 16)).shape == (1, 30)
    assert not [key for key in script.state_dict() if key.endswith((".eps", ".count"))]
    assert load_model(folder / "cpu_jit.pt", decode_chunk_len=64).backend.decode_chunk_len == 64


@pytest.mark.parametrize("recipe", ["zipformer", "lstm"])
def test_pretrained_holds_the_weights_under_icefalls_names(recipe, tmp_path, capsys):
    """Averaged, strict, one head, buffers included; and it can be loaded without config.yaml."""
    config = TINY_MODELS[recipe]
    make_experiment(tmp_path / "exp", num_epochs=2, model=config)
    command = ["export", "--exp-dir", tmp_path / "exp", "--output-dir", tmp_path / "out"]
    assert main([str(word) for word in (*command, "--epoch", 2, "--avg", 1)]) == 0
    path = tmp_path / "out" / "pretrained.pt"
    assert capsys.readouterr().out.splitlines()[0] == str(path)
    weights = load_checkpoint(path)["model"]
    fresh = build_transducer(config, tiny_tokenizer().vocab_size).state_dict()
    assert list(weights) == list(fresh)
    assert [w.shape for w in weights.values()] == [w.shape for w in fresh.values()]
    key = "joiner.output_linear.weight"
    mean = 2 * tiny_weights(102, config)[key] - tiny_weights(101, config)[key]
    torch.testing.assert_close(weights[key], mean)
    alone = load_transducer(path).config.model
    for name in vars(config):
        if name not in ("encoder_unmasked_dims",):
            assert getattr(alone, name) == getattr(config, name), name


@pytest.mark.parametrize("config", [ZipformerConfig(), LstmConfig()])
def test_dimensions_of_full_size_weights(config):
    from snowmelt.checkpoint.icefall import model_config_of

    with torch.device("meta"):
        weights = build_transducer(config, 500).state_dict()
    found = model_config_of(weights)
    for name in vars(config):
        if name not in ("encoder_unmasked_dims",):
            assert getattr(found, name) == getattr(config, name), name


def test_full_size_names_are_icefalls():
    case = json.loads((_GOLDEN / "keys" / "zipformer_default.json").read_text())
    with torch.device("meta"):
        weights = build_transducer(ZipformerConfig(), 500).state_dict()
    assert [[key, list(value.shape)] for key, value in weights.items()] == [
        entry[:2] for entry in case["keys"]
    ]


def test_eight_bits_are_a_quarter(tmp_path):
    folder = noisy_experiment(tmp_path, TINY_MODELS["lstm"])
    written = list(export(Source(folder), Forms(onnx=True, int8=True), tmp_path / "out"))
    assert [w.remark.split(":")[0] for w in written] == [
        "verified on 7 random chunks of 1 and 3 streams",
        "rounded",
    ]
    import onnx

    kinds = {n.op_type for n in onnx.load(written[1].files[0]).graph.node}
    assert "MatMulInteger" in kinds and "MatMul" not in kinds
    assert load_model(written[1].files[0]).backend.decode_chunk_len == 32


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="--int8 is a form of ONNX files"):
        Forms(int8=True)
    weights = tmp_path / "weights.pt"
    torch.save({"model": {"encoder.x": torch.zeros(1)}}, weights)
    with pytest.raises(CheckpointError, match="do not hold a streaming Zipformer or LSTM"):
        load_transducer(weights)
    folder = noisy_experiment(tmp_path / "exp", TINY_MODELS["lstm"])
    with pytest.raises(CheckpointError, match="ONNX files: another head is not possible"):
        (tmp_path / "encoder.onnx").write_bytes(b"")
        load_model(tmp_path / "encoder.onnx", head="giga")
    with pytest.raises(CheckpointError, match=r"decoder\.onnx does not exist"):
        load_model(tmp_path / "encoder.onnx")
    from snowmelt.text.tokenizer import build_words

    with pytest.raises(ConfigError, match="is not the one"):
        list(
            export(Source(folder, tokenizer=build_words(["A"])), Forms(jit=True), tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_the_transducer_is_called_by_its_parts():
    with pytest.raises(NotImplementedError):
        InferenceTransducer(build_transducer(TINY_MODELS["zipformer"], 30))()
