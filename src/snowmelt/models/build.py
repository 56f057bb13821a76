"""How does a preset's row of numbers become a model?

Invariant: the only place where ``presets`` meet the networks, which take plain arguments.
"""

from typing import Final

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.transducer import Transducer
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.presets.models import ZipformerConfig

__all__ = ["build_transducer", "fold_feature_normalisation"]

_BLANK_ID: Final = 0


def build_transducer(config: ZipformerConfig, vocab_size: int) -> Transducer:
    """A transducer with freshly drawn weights, in training mode.

    Args:
        config: dimensions; already checked by itself.
        vocab_size: V, blank included.

    The draws come from torch's global generator: seed it for repeatable weights.
    """
    encoder = Zipformer(
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
    encoder_dim = config.encoder_dims[-1]
    return Transducer(
        encoder=encoder,
        decoder=Decoder(vocab_size, config.decoder_dim, _BLANK_ID, config.context_size),
        joiner=Joiner(encoder_dim, config.decoder_dim, config.joiner_dim, vocab_size),
        encoder_dim=encoder_dim,
        decoder_dim=config.decoder_dim,
        joiner_dim=config.joiner_dim,
        vocab_size=vocab_size,
    )


def fold_feature_normalisation(model: Transducer, mean: float, std: float) -> None:
    """Let fresh weights see normalised features; see `Conv2dSubsampling.fold_normalisation`."""
    assert isinstance(model.encoder, Zipformer), type(model.encoder)
    model.encoder.encoder_embed.fold_normalisation(mean, std)
