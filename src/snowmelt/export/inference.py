"""Which module does every export start from? A transducer that only recognises, and is scriptable.

Invariant: `encoder`, `decoder` and `joiner` under these names, parameters named as in a checkpoint;
what only training needs (simple projections, balancers, scales) is gone.
"""

import torch
from torch import Tensor, nn

from snowmelt.export.lstm import InferenceLstm
from snowmelt.export.zipformer.encoder import InferenceZipformer
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.transducer import Transducer
from snowmelt.models.zipformer.encoder import Zipformer

__all__ = ["InferenceDecoder", "InferenceJoiner", "InferenceTransducer"]


class InferenceDecoder(nn.Module):
    """The prediction network.

    Args:
        decoder: the trained one, scales folded.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.context_size: int = decoder.context_size
        self.blank_id: int = decoder.blank_id
        self.vocab_size: int = decoder.vocab_size
        self.embedding = decoder.embedding
        self.conv = decoder.conv

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        """(N, S) int64 -> (N, S, C), or without padding (N, S - context_size + 1, C).

        A negative id has a zero embedding.
        """
        embedded = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)
        if self.context_size > 1:
            embedded = embedded.transpose(1, 2)
            if need_pad:
                embedded = nn.functional.pad(embedded, (self.context_size - 1, 0))
            embedded = self.conv(embedded).transpose(1, 2)
        out: Tensor = embedded.relu()
        return out


class InferenceJoiner(nn.Module):
    """The joiner.

    Args:
        joiner: the trained one, scales folded.
    """

    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.encoder_proj = joiner.encoder_proj
        self.decoder_proj = joiner.decoder_proj
        self.output_linear = joiner.output_linear

    def forward(
        self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True
    ) -> Tensor:
        """(..., C) and (..., D), or projected, to logits (..., V)."""
        if project_input:
            encoder_out = self.encoder_proj(encoder_out)
            decoder_out = self.decoder_proj(decoder_out)
        logits: Tensor = self.output_linear(torch.tanh(encoder_out + decoder_out))
        return logits


class InferenceTransducer(nn.Module):
    """Encoder, prediction network and joiner of a trained model.

    Args:
        model: with one head, scales folded (`fold_scales`); its weights are shared.
        unroll: see `InferenceLstm`.
    """

    def __init__(self, model: Transducer, *, unroll: bool = False) -> None:
        super().__init__()
        encoder = model.encoder
        if isinstance(encoder, Lstm):
            self.encoder: nn.Module = InferenceLstm(encoder, unroll=unroll)
        else:
            assert isinstance(encoder, Zipformer), type(encoder)
            self.encoder = InferenceZipformer(encoder)
        self.decoder = InferenceDecoder(model.decoder)
        self.joiner = InferenceJoiner(model.joiner)
        self.eval()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def forward(self) -> None:
        """The parts are called one by one."""
        raise NotImplementedError
