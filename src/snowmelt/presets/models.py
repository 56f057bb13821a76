"""Which numbers describe a model? One frozen dataclass a model family, and the named presets.

Invariant: numbers only; no torch, no files. A preset is a value: recipes combine them, nothing is
inherited or patched.

Source of the default values: icefall, egs/librispeech/ASR:
pruned_transducer_stateless7_streaming/train.py and lstm_transducer_stateless2/train.py.
"""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final, Literal

from snowmelt.core.errors import ConfigError
from snowmelt.presets.frames import (
    LSTM_FRONT_END,
    SUBSAMPLING_FACTOR,
    ZIPFORMER_FRONT_END,
    FrontEnd,
)
from snowmelt.presets.ranges import require_numbers

__all__ = ["MODEL_PRESETS", "LstmConfig", "ModelConfig", "ZipformerConfig", "model_preset"]

# The embedding halves the frame rate once before the first stack (10 ms -> 20 ms).
_EMBEDDING_DOWNSAMPLING: Final = 2

# Attention inside a chunk needs memory that grows with the square of its length.
_MAX_CHUNK_LEN: Final = 6000

# Channels in a group of the decoder's convolution.
_DECODER_GROUP: Final = 4

# The front ends halve the mel bins twice, with kernels of three.
_MIN_FEATURE_DIM: Final = {"zipformer": 7, "lstm": 9}


@dataclass(frozen=True)
class ZipformerConfig:
    """Dimensions of a streaming Zipformer transducer; field names are the recipe's option names.

    Per-stack values are tuples with one entry a stack. `decode_chunk_len` counts feature frames of
    10 ms, `short_chunk_size` frames of 20 ms (after the front end).

    Raises:
        ConfigError: the values do not describe a model that can be built.
    """

    encoder: Literal["zipformer"] = "zipformer"
    num_encoder_layers: tuple[int, ...] = (2, 4, 3, 2, 4)
    feedforward_dims: tuple[int, ...] = (1024, 1024, 2048, 2048, 1024)
    nhead: tuple[int, ...] = (8, 8, 8, 8, 8)
    encoder_dims: tuple[int, ...] = (384, 384, 384, 384, 384)
    attention_dims: tuple[int, ...] = (192, 192, 192, 192, 192)
    encoder_unmasked_dims: tuple[int, ...] = (256, 256, 256, 256, 256)
    zipformer_downsampling_factors: tuple[int, ...] = (1, 2, 4, 8, 2)
    cnn_module_kernels: tuple[int, ...] = (31, 31, 31, 31, 31)
    decoder_dim: int = 512
    joiner_dim: int = 512
    context_size: int = 2
    short_chunk_size: int = 50
    num_left_chunks: int = 4
    decode_chunk_len: int = 32
    feature_dim: int = 80
    dropout: float = 0.1

    def __post_init__(self) -> None:
        not_negative = {"num_left_chunks", "dropout"}
        _check_numbers(self, not_negative)
        num_stacks = len(self.num_encoder_layers)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and len(value) != num_stacks:
                raise ConfigError(
                    f"{field.name} has {len(value)} values, num_encoder_layers has {num_stacks}",
                    hint="give one value a stack, comma-separated",
                )
        self._check_chunks()
        if any(kernel % 2 == 0 for kernel in self.cnn_module_kernels):
            raise ConfigError(
                f"cnn_module_kernels is {','.join(map(str, self.cnn_module_kernels))}: a kernel "
                "has a middle, so it must be odd",
                hint="31 is usual",
            )
        if self.decoder_dim % _DECODER_GROUP:
            raise ConfigError(
                f"decoder_dim is {self.decoder_dim}, it must be a multiple of {_DECODER_GROUP}",
                hint="the decoder convolves groups of channels",
            )
        dims = self.encoder_dims
        if any(a > b for a, b in pairwise(dims)) or any(d % 2 for d in dims):
            raise ConfigError(
                f"encoder_dims is {','.join(map(str, dims))}: dims must be even and not decrease",
                hint="use the same value for every stack",
            )
        for name, unmasked, dim in zip(
            range(num_stacks), self.encoder_unmasked_dims, dims, strict=True
        ):
            if unmasked > dim:
                raise ConfigError(
                    f"encoder_unmasked_dims of stack {name} is {unmasked}, above its dim {dim}",
                    hint="lower encoder_unmasked_dims or raise encoder_dims",
                )
        for heads, attention_dim in zip(self.nhead, self.attention_dims, strict=True):
            if attention_dim % (2 * heads):
                raise ConfigError(
                    f"attention_dims value {attention_dim} is no multiple of 2 x nhead ({heads})",
                    hint="queries are split over heads, values have half the width",
                )

    def _check_chunks(self) -> None:
        factors = self.zipformer_downsampling_factors
        coarsest = max(factors, default=1)
        if any(coarsest % factor for factor in factors):
            raise ConfigError(
                f"zipformer_downsampling_factors is {','.join(map(str, factors))}: each must "
                "divide the largest",
                hint="1,2,4,8,2 is usual",
            )
        step = _EMBEDDING_DOWNSAMPLING * coarsest
        if self.decode_chunk_len % step:
            raise ConfigError(
                f"decode_chunk_len is {self.decode_chunk_len}, it must be a multiple of {step}",
                hint=f"{step}, {2 * step} and {4 * step} feature frames are usual",
            )
        if self.short_chunk_size < coarsest:
            raise ConfigError(
                f"short_chunk_size is {self.short_chunk_size}, it must be at least {coarsest}, "
                "the largest of zipformer_downsampling_factors",
                hint="50 is usual",
            )

    @property
    def decode_chunk_size(self) -> int:
        """Chunk length in 20 ms frames, after the front end."""
        return self.decode_chunk_len // _EMBEDDING_DOWNSAMPLING

    @property
    def front_end(self) -> FrontEnd:
        """What the convolutions in front of the encoder see."""
        return ZIPFORMER_FRONT_END

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output."""
        return self.encoder_dims[-1]


@dataclass(frozen=True)
class LstmConfig:
    """Dimensions of an LSTM transducer; field names are the recipe's option names.

    `decode_chunk_len` counts feature frames of 10 ms: the encoder is causal, so any multiple of 4
    gives the same numbers, and a longer chunk is faster.

    Raises:
        ConfigError: the values do not describe a model that can be built.
    """

    encoder: Literal["lstm"] = "lstm"
    num_encoder_layers: int = 12
    encoder_dim: int = 512
    rnn_hidden_size: int = 1024
    dim_feedforward: int = 2048
    aux_layer_period: int = 0  # every so many layers give an output that is combined; 0: none
    layer_dropout: float = 0.075
    grad_norm_threshold: float = 10.0
    decoder_dim: int = 512
    joiner_dim: int = 512
    context_size: int = 2
    decode_chunk_len: int = 32
    feature_dim: int = 80
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_numbers(self, {"aux_layer_period", "layer_dropout", "dropout"})
        if self.rnn_hidden_size < self.encoder_dim:
            raise ConfigError(
                f"rnn_hidden_size is {self.rnn_hidden_size}, below encoder_dim {self.encoder_dim}",
                hint="cells are projected down to encoder_dim: twice as many are usual",
            )
        if self.decode_chunk_len % SUBSAMPLING_FACTOR:
            raise ConfigError(
                f"decode_chunk_len is {self.decode_chunk_len}, it must be a multiple of "
                f"{SUBSAMPLING_FACTOR}",
                hint="16, 32 and 64 feature frames are usual",
            )
        if self.layer_dropout >= 1.0:
            raise ConfigError(
                f"layer_dropout is {self.layer_dropout}, it must be below 1",
                hint="0.075 is usual",
            )

    @property
    def front_end(self) -> FrontEnd:
        """What the convolutions in front of the encoder see."""
        return LSTM_FRONT_END

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output."""
        return self.encoder_dim


ModelConfig = ZipformerConfig | LstmConfig


def _check_numbers(config: ModelConfig, not_negative: set[str]) -> None:
    """What holds for every model."""
    positive = {field.name for field in fields(config)} - not_negative
    require_numbers(config, positive=positive, not_negative=not_negative)
    if config.decode_chunk_len > _MAX_CHUNK_LEN:
        raise ConfigError(
            f"decode_chunk_len is {config.decode_chunk_len}, it must be at most "
            f"{_MAX_CHUNK_LEN}, a minute of sound",
            hint="16, 32 and 64 feature frames are usual",
        )
    least = _MIN_FEATURE_DIM[config.encoder]
    if config.feature_dim < least:
        raise ConfigError(
            f"feature_dim is {config.feature_dim}, it must be at least {least}",
            hint="80 is usual",
        )
    if config.dropout >= 1.0:
        raise ConfigError(f"dropout is {config.dropout}, it must be below 1", hint="0.1 is usual")


MODEL_PRESETS: Final[dict[str, ModelConfig]] = {
    # The original's size: 70,369,391 parameters with a vocabulary of 500.
    "zipformer": ZipformerConfig(),
    # About 11 M parameters: one GPU of 8 GB, or a patient CPU.
    "zipformer-small": ZipformerConfig(
        num_encoder_layers=(2, 2, 2, 2, 2),
        feedforward_dims=(512, 512, 512, 512, 512),
        nhead=(4, 4, 4, 4, 4),
        encoder_dims=(192, 192, 192, 192, 192),
        attention_dims=(128, 128, 128, 128, 128),
        encoder_unmasked_dims=(160, 160, 160, 160, 160),
        decoder_dim=256,
        joiner_dim=256,
    ),
    # About 4 M parameters: learns a closed vocabulary in minutes on two CPU cores.
    "zipformer-tiny": ZipformerConfig(
        num_encoder_layers=(1, 2, 2, 2, 1),
        feedforward_dims=(256, 384, 384, 384, 256),
        nhead=(4, 4, 4, 4, 4),
        encoder_dims=(128, 128, 128, 128, 128),
        attention_dims=(96, 96, 96, 96, 96),
        encoder_unmasked_dims=(96, 96, 96, 96, 96),
        decoder_dim=128,
        joiner_dim=128,
    ),
    # The original's size: 84,689,496 parameters with a vocabulary of 500.
    "lstm": LstmConfig(),
    # About 9 M parameters: learns a small corpus in an hour on two CPU cores.
    "lstm-small": LstmConfig(
        num_encoder_layers=5,
        encoder_dim=256,
        rnn_hidden_size=512,
        dim_feedforward=1024,
        decoder_dim=256,
        joiner_dim=256,
    ),
}


def model_preset(name: str) -> ModelConfig:
    """The model preset called `name`.

    Raises:
        ConfigError: there is no such preset; the message lists those there are.
    """
    if name not in MODEL_PRESETS:
        raise ConfigError(
            f"there is no model preset {name!r}", hint=f"choose {', '.join(MODEL_PRESETS)}"
        )
    return MODEL_PRESETS[name]
