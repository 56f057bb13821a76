"""Which token comes next, given one encoder frame and one decoder vector?

Invariant: works row by row; frames and tokens meet only where the caller lines them up.

Source: icefall, egs/librispeech/ASR: joiner.py of pruned_transducer_stateless7, of
pruned_transducer_stateless2 for the scaled form.
"""

from torch import Tensor, nn

from snowmelt.models.scaled_layers import ScaledLinear

__all__ = ["Joiner"]


class Joiner(nn.Module):
    """output_linear(tanh(encoder_proj(e) + decoder_proj(d))).

    Args:
        encoder_dim, decoder_dim: channels of the two inputs.
        joiner_dim: J, channels in which they are added.
        vocab_size: V, blank included.
        scaled: made of `scaled_layers`, as the LSTM transducer's is.
    """

    def __init__(
        self,
        encoder_dim: int,
        decoder_dim: int,
        joiner_dim: int,
        vocab_size: int,
        *,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        linear = ScaledLinear if scaled else nn.Linear
        self.encoder_proj = linear(encoder_dim, joiner_dim)
        self.decoder_proj = linear(decoder_dim, joiner_dim)
        self.output_linear = linear(joiner_dim, vocab_size)

    def forward(
        self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True
    ) -> Tensor:
        """Unnormalised log-probabilities.

        Args:
            encoder_out: (..., encoder_dim), or (..., J) if already projected.
            decoder_out: (..., decoder_dim), or (..., J); same number of axes, broadcastable.
            project_input: False: both inputs have gone through their projection.

        Returns:
            (..., V) logits.
        """
        if project_input:
            encoder_out = self.encoder_proj(encoder_out)
            decoder_out = self.decoder_proj(decoder_out)
        logits: Tensor = self.output_linear((encoder_out + decoder_out).tanh())
        return logits

    def output_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, J) and bias (V,) of the output layer, for a loss that applies it by itself."""
        layer = self.output_linear
        if isinstance(layer, ScaledLinear):
            return layer.scaled_parameters()
        return layer.weight, layer.bias
