"""Sizes of a model: what is known of it, and what options say."""

import pytest

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.presets.models import LstmConfig, ZipformerConfig
from snowmelt.runtime.dimensions import check_dimensions, dimensions_of, onnx_dimensions

_ZIPFORMER = dimensions_of(ZipformerConfig())
_METADATA = {
    "model_type": "zipformer",
    "num_encoder_layers": "2,4,3,2,4",
    "encoder_dims": "384,384,384,384,384",
    "attention_dims": "192,192,192,192,192",
    "cnn_module_kernels": "31,31,31,31,31",
    "left_context_len": "64,32,16,8,32",
    "decode_chunk_len": "32",
    "T": "39",
}


def test_the_tutorials_options_agree():
    stated = {"num_encoder_layers": (2, 4, 3, 2, 4), "encoder_dims": 384, "context_size": 2}
    assert check_dimensions(_ZIPFORMER, stated, "m.pt") == []
    stated = {"num_encoder_layers": 12, "rnn_hidden_size": 1024, "aux_layer_period": 3}
    assert check_dimensions(dimensions_of(LstmConfig()), stated, "m.pt") == []


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (
            {"num_encoder_layers": (2, 4, 3, 2)},
            r"^--num-encoder-layers 2,4,3,2: m\.pt has 2,4,3,2,4",
        ),
        ({"encoder_dims": 256}, "^--encoder-dims 256: m.pt has 384,384,384,384,384"),
        ({"rnn_hidden_size": 1024}, "type zipformer, which has none"),
        ({"num_left_chunks": 2}, "has 4"),
    ],
)
def test_what_disagrees_is_named(stated, reason):
    with pytest.raises(ConfigError, match=reason):
        check_dimensions(_ZIPFORMER, stated, "m.pt")


def test_onnx_metadata_tells_a_part():
    known = onnx_dimensions(_METADATA)
    assert {key: _ZIPFORMER[key] for key in known} == known
    assert known["num_left_chunks"] == 4
    assert check_dimensions(known, {"encoder_dims": 384, "nhead": 8}, "e.onnx") == ["--nhead"]
    lstm = {"model_type": "lstm", "num_encoder_layers": "12", "d_model": "512"}
    assert onnx_dimensions(lstm) == {
        "encoder": "lstm",
        "num_encoder_layers": 12,
        "encoder_dim": 512,
    }
    with pytest.raises(CheckpointError, match="encoder_dims is 'wide'"):
        onnx_dimensions(_METADATA | {"encoder_dims": "wide"})


def test_of_a_file_that_tells_nothing_nothing_is_compared():
    assert check_dimensions({}, {"rnn_hidden_size": 3}, "m") == ["--rnn-hidden-size"]
