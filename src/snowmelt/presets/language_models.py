"""Which numbers describe a language model and its training? Dataclasses and the named presets.

Field names are the options of icefall's rnn_lm/train.py and transformer_lm/train.py where those
have them; the architectures are our own.

Invariant: numbers and names only; no torch, no files.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from snowmelt.core.errors import ConfigError
from snowmelt.presets.ranges import require_numbers

__all__ = [
    "LM_PRESETS",
    "LM_TYPES",
    "LmConfig",
    "LmTrainConfig",
    "LmType",
    "RnnLmConfig",
    "TransformerLmConfig",
    "lm_preset",
]

LmType = Literal["rnn", "transformer"]

LM_TYPES: Final[tuple[str, ...]] = get_args(LmType)

# Numbers of batches are added to multiples of it, and 64 bits must hold the sum.
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class RnnLmConfig:
    """An LSTM language model.

    Raises:
        ConfigError: a number is out of its range.
    """

    lm_type: Literal["rnn"] = "rnn"
    embedding_dim: int = 2048
    hidden_dim: int = 2048
    num_layers: int = 3
    tie_weights: bool = True  # one table of tokens for input and output
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_numbers(
            self, positive=("embedding_dim", "hidden_dim", "num_layers"), not_negative=("dropout",)
        )
        _check_dropout(self.dropout)


@dataclass(frozen=True)
class TransformerLmConfig:
    """A transformer language model that sees the last `context_len` tokens in every layer.

    Raises:
        ConfigError: a number is out of its range, or the width is no multiple of the heads.
    """

    lm_type: Literal["transformer"] = "transformer"
    encoder_dim: int = 768
    nhead: int = 8
    dim_feedforward: int = 2048
    num_layers: int = 16
    context_len: int = 128  # tokens that a layer attends to, the present one included
    tie_weights: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_numbers(
            self,
            positive=("encoder_dim", "nhead", "dim_feedforward", "num_layers", "context_len"),
            not_negative=("dropout",),
        )
        _check_dropout(self.dropout)
        if self.encoder_dim % self.nhead:
            raise ConfigError(
                f"encoder_dim is {self.encoder_dim}, no multiple of nhead ({self.nhead})",
                "each head has an equal share of the width",
            )


LmConfig = RnnLmConfig | TransformerLmConfig


@dataclass(frozen=True)
class LmTrainConfig:
    """The training of a language model; names are those of `TrainConfig` where it has them.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other.
    """

    num_epochs: int = 10
    base_lr: float = 0.05
    lr_batches: float = 5000.0
    lr_epochs: float = 6.0
    lr_warmup_batches: float = 100.0
    clipping_scale: float = 2.0
    max_tokens: int = 5000  # tokens in a batch, padding included
    max_sent_len: int = 200  # longer sentences are learnt in pieces
    seed: int = 42
    save_every_n: int = 2000
    keep_last_k: int = 5
    log_interval: int = 50
    reset_interval: int = 200
    valid_interval: int = 2000
    use_fp16: bool = False
    use_bf16: bool = False

    def __post_init__(self) -> None:
        not_negative = ("lr_warmup_batches", "seed")
        flags = ("use_fp16", "use_bf16")
        positive = set(self.__dataclass_fields__) - {*not_negative, *flags}
        require_numbers(self, positive=positive, not_negative=not_negative)
        if self.seed > _MAX_SEED:
            raise ConfigError(f"seed is {self.seed}, it must be at most {_MAX_SEED}", "42 is usual")
        if self.use_fp16 and self.use_bf16:
            raise ConfigError(
                "use_fp16 and use_bf16 are both on", hint="choose one: bf16 where the device has it"
            )


def _check_dropout(dropout: float) -> None:
    if dropout >= 1.0:
        raise ConfigError(f"dropout is {dropout}, it must be below 1", hint="0.1 is usual")


LM_PRESETS: Final[dict[str, dict[str, LmConfig]]] = {
    # The original's sizes.
    "lm": {"rnn": RnnLmConfig(), "transformer": TransformerLmConfig()},
    # 3 to 4 M parameters: book text in an hour on two CPU cores.
    "lm-small": {
        "rnn": RnnLmConfig(embedding_dim=256, hidden_dim=512, num_layers=2),
        "transformer": TransformerLmConfig(
            encoder_dim=256, nhead=4, dim_feedforward=1024, num_layers=4
        ),
    },
    # For a few thousand sentences of a closed vocabulary.
    "lm-tiny": {
        "rnn": RnnLmConfig(embedding_dim=96, hidden_dim=192, num_layers=1, dropout=0.3),
        "transformer": TransformerLmConfig(
            encoder_dim=96, nhead=4, dim_feedforward=256, num_layers=2, context_len=64, dropout=0.3
        ),
    },
}


def lm_preset(name: str, lm_type: str) -> LmConfig:
    """The preset of this name and type.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in LM_PRESETS or lm_type not in LM_TYPES:
        raise ConfigError(
            f"there is no preset {name!r} of language models of type {lm_type!r}",
            f"presets are {', '.join(LM_PRESETS)}, types {', '.join(LM_TYPES)}",
        )
    return LM_PRESETS[name][lm_type]
