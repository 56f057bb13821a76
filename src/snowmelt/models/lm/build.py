"""How does a preset's row of numbers become a language model?

Invariant: the only place where presets of language models meet the networks.
"""

from torch import nn

from snowmelt.models.lm.lstm import LstmCore
from snowmelt.models.lm.model import TokenLm
from snowmelt.models.lm.transformer import TransformerCore
from snowmelt.presets.language_models import LmConfig, RnnLmConfig

__all__ = ["build_lm"]


def build_lm(config: LmConfig, vocab_size: int) -> TokenLm:
    """A language model with freshly drawn weights, in training mode.

    Args:
        config: dimensions; already checked by itself.
        vocab_size: V, that of the transducer.

    The draws come from torch's global generator: seed it for repeatable weights.
    """
    if isinstance(config, RnnLmConfig):
        core: nn.Module = LstmCore(
            config.embedding_dim, config.hidden_dim, config.num_layers, dropout=config.dropout
        )
    else:
        core = TransformerCore(
            config.encoder_dim,
            config.nhead,
            config.dim_feedforward,
            config.num_layers,
            config.context_len,
            dropout=config.dropout,
        )
    return TokenLm(vocab_size, core, tie_weights=config.tie_weights, dropout=config.dropout)
