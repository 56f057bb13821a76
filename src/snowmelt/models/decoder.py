"""What does the transducer predict from the last few tokens alone?

This is the prediction network. Turning sound into words is elsewhere: ``search``, ``evaluate``.

Invariant: stateless; the output at a position depends on ``context_size`` tokens, nothing else.

Source: icefall, egs/librispeech/ASR: decoder.py of pruned_transducer_stateless7, of
pruned_transducer_stateless2 for the scaled form.
"""

from typing import Final

from torch import Tensor, nn

from snowmelt.models.scaled_layers import ScaledConv1d, ScaledEmbedding

__all__ = ["Decoder"]

# Channels in a group of the convolution; in the scaled form every channel is a group of its own.
_GROUP: Final = 4


class Decoder(nn.Module):
    """Embedding, grouped convolution over ``context_size`` tokens, ReLU.

    Args:
        vocab_size: V, blank included.
        decoder_dim: C, a multiple of 4 unless scaled.
        blank_id: id of the blank.
        context_size: tokens seen, >= 1; with 1 there is no convolution.
        scaled: made of `scaled_layers`, as the LSTM transducer's is.
    """

    def __init__(
        self,
        vocab_size: int,
        decoder_dim: int,
        blank_id: int,
        context_size: int,
        *,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        assert context_size >= 1, context_size
        self.vocab_size = vocab_size
        self.blank_id = blank_id
        self.context_size = context_size
        self.embedding: nn.Module = nn.Embedding(vocab_size, decoder_dim)
        self.conv: nn.Module = nn.Identity()
        groups = decoder_dim // _GROUP
        if scaled:
            self.embedding = ScaledEmbedding(vocab_size, decoder_dim)
            groups = decoder_dim
        if context_size > 1:
            convolution = ScaledConv1d if scaled else nn.Conv1d
            self.conv = convolution(
                decoder_dim, decoder_dim, context_size, groups=groups, bias=False
            )

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        """Decoder vector after each token.

        Args:
            y: (N, S) int64 token ids; a negative id is the time before the first token, its
                embedding is zero.
            need_pad: True (training): zero vectors stand for the tokens before y. False (search): y
                is the context itself, S = context_size.

        Returns:
            (N, S, C), or without padding (N, S - context_size + 1, C): one output per context.
        """
        embedded = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)  # (N, S, C)
        if self.context_size > 1:
            embedded = embedded.transpose(1, 2)
            if need_pad:
                embedded = nn.functional.pad(embedded, (self.context_size - 1, 0))
            embedded = self.conv(embedded).transpose(1, 2)
        out: Tensor = embedded.relu()
        return out
