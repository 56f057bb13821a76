"""Settings of a model that cannot be built are refused before anything is built."""

from dataclasses import replace
from typing import Any

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.presets.models import MODEL_PRESETS, LstmConfig, ZipformerConfig, model_preset


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_presets_are_right(name: str) -> None:
    assert replace(model_preset(name), decode_chunk_len=64).decode_chunk_len == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nhead": (4, 4)}, "nhead has 2 values, num_encoder_layers has 5"),
        ({"nhead": (0, 8, 8, 8, 8)}, "nhead is 0,8,8,8,8, it must be positive"),
        ({"nhead": (7, 8, 8, 8, 8)}, "attention_dims value 192 is no multiple of 2 x nhead (7)"),
        ({"encoder_dims": (384, 384, 384, 384, 256)}, "dims must be even and not decrease"),
        ({"encoder_unmasked_dims": (400,) * 5}, "stack 0 is 400, above its dim 384"),
        ({"cnn_module_kernels": (31, 31, 30, 31, 31)}, "31,31,30,31,31: a kernel has a middle"),
        ({"zipformer_downsampling_factors": (1, 2, 3, 4, 2)}, "each must divide the largest"),
        ({"zipformer_downsampling_factors": (1, 0, 4, 8, 2)}, "it must be positive"),
        ({"decode_chunk_len": 20}, "decode_chunk_len is 20, it must be a multiple of 16"),
        ({"decode_chunk_len": 1_000_000}, "at most 6000, a minute of sound"),
        ({"short_chunk_size": 7}, "short_chunk_size is 7, it must be at least 8"),
        ({"num_left_chunks": -1}, "num_left_chunks is -1, it must not be negative"),
        ({"context_size": 0}, "context_size is 0, it must be positive"),
        ({"decoder_dim": 30}, "decoder_dim is 30, it must be a multiple of 4"),
        ({"feature_dim": 5}, "feature_dim is 5, it must be at least 7"),
        ({"dropout": 1.0}, "dropout is 1.0, it must be below 1"),
        ({"dropout": float("nan")}, "dropout is nan, it must be a finite number"),
    ],
)
def test_models_that_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(ZipformerConfig(), **change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rnn_hidden_size": 256}, "rnn_hidden_size is 256, below encoder_dim 512"),
        ({"decode_chunk_len": 10}, "decode_chunk_len is 10, it must be a multiple of 4"),
        ({"decode_chunk_len": 8000}, "at most 6000, a minute of sound"),
        ({"layer_dropout": 1.0}, "layer_dropout is 1.0, it must be below 1"),
        ({"aux_layer_period": -1}, "aux_layer_period is -1, it must not be negative"),
        ({"num_encoder_layers": 0}, "num_encoder_layers is 0, it must be positive"),
        ({"feature_dim": 8}, "feature_dim is 8, it must be at least 9"),
        ({"dropout": 1.0}, "dropout is 1.0, it must be below 1"),
    ],
)
def test_lstms_that_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(LstmConfig(), **change)
    assert message in str(caught.value)


def test_what_the_encoder_gives_and_sees() -> None:
    assert LstmConfig(encoder_dim=256).output_dim == 256
    assert ZipformerConfig().output_dim == 384
    assert ZipformerConfig().decode_chunk_size == 16
    assert LstmConfig().front_end.window_overlap == 5
    assert ZipformerConfig().front_end.window_overlap == 7


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match=r"no model preset 'big' \(hint: choose zipformer, "):
        model_preset("big")
