"""How does a preset's row of numbers become a model?

Invariant: the only place where ``presets`` meet the networks, which take plain arguments.
"""

from collections.abc import Sequence
from typing import Final

from torch import nn

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.scaled_layers import ScaledLinear
from snowmelt.models.transducer import Transducer, TransducerHead
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.presets.models import LstmConfig, ModelConfig, ZipformerConfig

__all__ = ["build_transducer", "fold_feature_normalisation"]

_BLANK_ID: Final = 0

# The LSTM's simple_am_proj begins with larger weights, so that it learns at half speed.
_AM_PROJ_SPEED: Final = 0.5


def build_transducer(
    config: ModelConfig, vocab_size: int, *, extra_heads: Sequence[str] = ()
) -> Transducer:
    """A transducer with freshly drawn weights, in training mode.

    Args:
        config: dimensions; already checked by itself.
        vocab_size: V, blank included.
        extra_heads: names of heads beside the main one, for corpora that share the encoder.

    The draws come from torch's global generator: seed it for repeatable weights.
    """
    if isinstance(config, LstmConfig):
        encoder: nn.Module = _build_lstm(config)
    else:
        encoder = _build_zipformer(config)
    main_head = _build_head(config, vocab_size)
    others = [(name, _build_head(config, vocab_size)) for name in extra_heads]
    return Transducer(encoder, main_head, others)


def fold_feature_normalisation(model: Transducer, mean: float, std: float) -> None:
    """Let fresh weights see normalised features; see `Conv2dSubsampling.fold_normalisation`."""
    assert isinstance(model.encoder, Zipformer | Lstm), type(model.encoder)
    model.encoder.encoder_embed.fold_normalisation(mean, std)


def _build_zipformer(config: ZipformerConfig) -> Zipformer:
    return Zipformer(
        num_features=config.feature_dim,
        output_downsampling_factor=2,
        encoder_dims=config.encoder_dims,
        attention_dim=config.attention_dims,
        encoder_unmasked_dims=config.encoder_unmasked_dims,
        zipformer_downsampling_factors=config.zipformer_downsampling_factors,
        nhead=config.nhead,
        feedforward_dim=config.feedforward_dims,
        num_encoder_layers=config.num_encoder_layers,
        dropout=config.dropout,
        cnn_module_kernels=config.cnn_module_kernels,
        num_left_chunks=config.num_left_chunks,
        short_chunk_size=config.short_chunk_size,
        decode_chunk_size=config.decode_chunk_size,
    )


def _build_lstm(config: LstmConfig) -> Lstm:
    return Lstm(
        num_features=config.feature_dim,
        d_model=config.encoder_dim,
        rnn_hidden_size=config.rnn_hidden_size,
        dim_feedforward=config.dim_feedforward,
        num_encoder_layers=config.num_encoder_layers,
        dropout=config.dropout,
        layer_dropout=config.layer_dropout,
        aux_layer_period=config.aux_layer_period,
        grad_norm_threshold=config.grad_norm_threshold,
    )


def _build_head(config: ModelConfig, vocab_size: int) -> TransducerHead:
    scaled = isinstance(config, LstmConfig)
    decoder = Decoder(vocab_size, config.decoder_dim, _BLANK_ID, config.context_size, scaled=scaled)
    joiner = Joiner(
        config.output_dim, config.decoder_dim, config.joiner_dim, vocab_size, scaled=scaled
    )
    if scaled:
        return TransducerHead(
            decoder,
            joiner,
            ScaledLinear(config.output_dim, vocab_size, initial_speed=_AM_PROJ_SPEED),
            ScaledLinear(config.decoder_dim, vocab_size),
        )
    return TransducerHead(
        decoder,
        joiner,
        nn.Linear(config.output_dim, vocab_size),
        nn.Linear(config.decoder_dim, vocab_size),
    )
