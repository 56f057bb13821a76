"""From a preset to a model."""

from snowmelt.models.build import build_transducer
from snowmelt.presets.models import ZipformerConfig


def test_dimensions_reach_the_parts() -> None:
    config = ZipformerConfig(
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
    model = build_transducer(config, vocab_size=9)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["encoder.encoder_embed.out.weight"] == (16, 128 * 9)
    assert shapes["encoder.encoders.1.encoder.layers.0.feed_forward1.in_proj.weight"] == (32, 24)
    assert shapes["decoder.conv.weight"] == (12, 4, 3)
    assert shapes["joiner.output_linear.weight"] == (9, 20)
    assert shapes["simple_am_proj.weight"] == (9, 24)
    assert model.training
