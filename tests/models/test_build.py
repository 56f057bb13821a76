"""From a preset to a model."""

import pytest
import torch
from torch import nn

from snowmelt.models.build import build_transducer, fold_feature_normalisation
from snowmelt.models.scaled_layers import ScaledLinear
from snowmelt.presets.models import LstmConfig, ModelConfig, ZipformerConfig

ZIPFORMER = ZipformerConfig(
    num_encoder_layers=(1, 1),
    feedforward_dims=(24, 32),
    nhead=(2, 2),
    encoder_dims=(16, 24),
    attention_dims=(16, 16),
    encoder_unmasked_dims=(8, 8),
    zipformer_downsampling_factors=(1, 2),
    cnn_module_kernels=(7, 7),
    decoder_dim=12,
    joiner_dim=20,
    context_size=3,
    decode_chunk_len=16,
    feature_dim=40,
)
LSTM = LstmConfig(
    num_encoder_layers=3,
    encoder_dim=24,
    rnn_hidden_size=32,
    dim_feedforward=28,
    aux_layer_period=1,
    layer_dropout=0.2,
    grad_norm_threshold=25.0,
    decoder_dim=10,
    joiner_dim=20,
    context_size=3,
    feature_dim=40,
    dropout=0.3,
)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_dimensions_reach_the_parts_of_a_zipformer() -> None:
    model = build_transducer(ZIPFORMER, vocab_size=9)
    shapes = _shapes(model)
    assert shapes["encoder.encoder_embed.out.weight"] == (16, 128 * 9)
    assert shapes["encoder.encoders.1.encoder.layers.0.feed_forward1.in_proj.weight"] == (32, 24)
    assert shapes["decoder.conv.weight"] == (12, 4, 3)
    assert shapes["joiner.output_linear.weight"] == (9, 20)
    assert shapes["simple_am_proj.weight"] == (9, 24)
    assert model.training


def test_dimensions_reach_the_parts_of_an_lstm() -> None:
    model = build_transducer(LSTM, vocab_size=9)
    shapes = _shapes(model)
    assert shapes["encoder.encoder_embed.out.weight"] == (24, 128 * 8)
    assert shapes["encoder.encoder.layers.2.lstm.weight_ih_l0"] == (128, 24)
    assert shapes["encoder.encoder.layers.2.lstm.weight_hr_l0"] == (24, 32)
    assert shapes["encoder.encoder.layers.2.feed_forward.0.weight"] == (28, 24)
    assert shapes["decoder.conv.weight"] == (10, 1, 3)
    assert shapes["joiner.output_linear.weight_scale"] == ()
    assert shapes["simple_am_proj.weight"] == (9, 24)
    layer = model.encoder.encoder.layers[0]
    assert (layer.layer_dropout, layer.dropout.prob) == (0.2, 0.3)
    assert layer.lstm.grad_norm_threshold == 25.0
    assert model.encoder.encoder.aux_layers == (1, 2)
    assert model.training


def test_the_lstms_acoustic_projection_begins_with_larger_weights() -> None:
    model = build_transducer(LstmConfig(num_encoder_layers=1), vocab_size=50)
    largest = [
        float(linear.weight.detach().abs().max())
        for linear in (model.simple_am_proj, model.simple_lm_proj)
        if isinstance(linear, ScaledLinear)
    ]
    assert largest == pytest.approx([0.3464, 0.1732], rel=1e-3)


@pytest.mark.parametrize("config", [ZIPFORMER, LSTM], ids=["zipformer", "lstm"])
def test_heads_share_the_encoder_and_nothing_else(config: ModelConfig) -> None:
    plain = build_transducer(config, vocab_size=9)
    model = build_transducer(config, vocab_size=9, extra_heads=("giga", "radio"))
    assert model.head_names == ("giga", "radio")
    of_heads = [key for key in _shapes(plain) if not key.startswith("encoder.")]
    for name in model.head_names:
        for key in of_heads:
            part, rest = key.split(".", maxsplit=1)
            assert _shapes(model)[f"{part}_{name}.{rest}"] == _shapes(model)[key]
    assert len(model.state_dict()) == len(plain.state_dict()) + 2 * len(of_heads)
    pointers = [p.data_ptr() for p in model.parameters()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("config", [ZIPFORMER, LSTM], ids=["zipformer", "lstm"])
def test_feature_normalisation_is_folded_into_either_front_end(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = build_transducer(config, vocab_size=9).double()
    first = model.encoder.encoder_embed.conv[0]
    x = 3.0 * torch.randn(1, 1, 30, 40, dtype=torch.float64) - 7.0
    expected = first((x + 7.0) / 3.0)
    fold_feature_normalisation(model, -7.0, 3.0)
    # Where the Zipformer pads with zeros, at the edges of the mel bins, the two differ.
    torch.testing.assert_close(first(x)[..., 1:-1], expected[..., 1:-1])
