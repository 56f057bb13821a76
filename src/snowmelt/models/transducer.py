"""Which parts make a transducer?

Invariant: it only holds the parts, under the original's parameter names. The loss is the trainer's
affair (``train/objective.py``), the search is ``search``'s.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/model.py.
"""

from torch import nn

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner

__all__ = ["Transducer"]


class Transducer(nn.Module):
    """Encoder, decoder, joiner and the two projections of the simple loss.

    Args:
        encoder: (N, T, F) features to (N, T'', encoder_dim).
        decoder, joiner: see their classes.
        encoder_dim, decoder_dim, joiner_dim: channels of the three.
        vocab_size: V, blank included.

    ``simple_am_proj`` and ``simple_lm_proj`` give the (.., V) logits whose sum is the simple joiner
    that tells the pruned loss where to look.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        joiner: Joiner,
        encoder_dim: int,
        decoder_dim: int,
        joiner_dim: int,
        vocab_size: int,
    ) -> None:
        super().__init__()
        assert joiner.output_linear.in_features == joiner_dim, joiner_dim
        self.encoder = encoder
        self.decoder = decoder
        self.joiner = joiner
        self.simple_am_proj = nn.Linear(encoder_dim, vocab_size)
        self.simple_lm_proj = nn.Linear(decoder_dim, vocab_size)
