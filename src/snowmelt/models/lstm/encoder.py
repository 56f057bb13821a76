"""How do features become encoder frames? The whole LSTM encoder, for utterances and for streams.

`forward` takes whole utterances, `stream` the next frames of streams and their state. The encoder
is causal and its front end pads nothing, so both give the same numbers for every length of chunks,
whatever shares the batch.

Invariant: (N, T, F) in, (N, T', C) out; between the embedding and the output (T, N, C). No state
but the weights and `warmup`: every random draw is from Python's or torch's global generator.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/lstm.py, RNN.
"""

import copy
from typing import Final

import torch
from torch import Tensor, nn

from snowmelt.models.features import (
    MIN_FEATURE_FRAMES,
    check_features,
    check_utterances,
    fill_padding,
)
from snowmelt.models.lstm.combine import RandomCombine, aux_layers
from snowmelt.models.lstm.layer import LstmLayer
from snowmelt.models.lstm.state import LstmState, state_after
from snowmelt.models.lstm.subsampling import Conv2dSubsampling

__all__ = ["Lstm", "LstmStack"]

# Feature frames that a window has beyond four for every frame it gives.
_OVERLAP: Final = 5


class Lstm(nn.Module):
    """Encoder of a convolutional front end and LSTM layers.

    Args:
        num_features: F, mel bins.
        d_model: C, channels between the layers.
        rnn_hidden_size: H, cells of an LSTM, at least d_model.
        dim_feedforward: channels inside the feed-forwards.
        num_encoder_layers: L.
        dropout, layer_dropout: probabilities; see `LstmLayer`.
        aux_layer_period: see `aux_layers`.
        grad_norm_threshold: see `filter_gradients`.

    Attributes:
        warmup: how far training has come in units of its warm-up, to be set before the forward of
            each batch: until 0.9 the layers do not count fully. Evaluation does not look at it.
    """

    def __init__(
        self,
        num_features: int,
        *,
        d_model: int = 512,
        rnn_hidden_size: int = 1024,
        dim_feedforward: int = 2048,
        num_encoder_layers: int = 12,
        dropout: float = 0.1,
        layer_dropout: float = 0.075,
        aux_layer_period: int = 0,
        grad_norm_threshold: float = 10.0,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.d_model = d_model
        self.rnn_hidden_size = rnn_hidden_size
        self.num_encoder_layers = num_encoder_layers
        self.warmup = 1.0
        self.encoder_embed = Conv2dSubsampling(num_features, d_model)
        layer = LstmLayer(
            d_model, rnn_hidden_size, dim_feedforward, dropout, layer_dropout, grad_norm_threshold
        )
        self.encoder = LstmStack(layer, num_encoder_layers, aux_layer_period)

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances.

        Args:
            x: (N, T, F) features; what it holds at and after x_lens does not matter.
            x_lens: (N,) int64 valid feature frames, each >= 9 and <= T.

        Returns:
            (N, T', C) and (N,) int64 lengths (x_lens - 5) // 4.

        Raises:
            DataError: an utterance is too short to give a frame or longer than T, or x has another
                number of mel bins.
        """
        check_features(x, self.num_features)
        check_utterances(x, x_lens)
        x_lens = x_lens.to(torch.int64)
        x = fill_padding(x[:, : int(x_lens.max())], x_lens)
        out, _ = self.encoder(self._embedded(x), self.init_state(x.size(0)), None, self.warmup)
        return out.transpose(0, 1), _out_lens(x_lens)

    def init_state(
        self,
        num_streams: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> LstmState:
        """State of `num_streams` fresh streams.

        Args:
            num_streams: N.
            dtype, device: those of the weights by default.
        """
        like = self.encoder_embed.out.weight.new_zeros(0, dtype=dtype, device=device)
        shape = num_streams, self.num_encoder_layers
        return LstmState(
            like.new_zeros(*shape, self.d_model), like.new_zeros(*shape, self.rnn_hidden_size)
        )

    def stream(
        self, x: Tensor, x_lens: Tensor, state: LstmState
    ) -> tuple[Tensor, Tensor, LstmState]:
        """The next frames of streams.

        A window of 4k + 5 feature frames gives k frames, and the stream's next window begins 4k
        frames later. A window with up to 3 frames more, or with fewer than 9 (0, say), ends its
        stream; the latter gives nothing and leaves its stream as it was.

        Args:
            x: (N, 4k + 5, F), k for the longest window; what lies behind a window does not matter.
            x_lens: (N,) int64 valid frames of each window.
            state: of the same N streams.

        Returns:
            (N, k, C), (N,) int64 valid frames of each stream, and the new state.

        Raises:
            DataError: x has another number of mel bins.
        """
        check_features(x, self.num_features)
        lens = _out_lens(x_lens.to(torch.int64))
        if x.size(1) < MIN_FEATURE_FRAMES:
            return x.new_zeros(x.size(0), 0, self.d_model), lens, state
        x = self._embedded(x)  # (k, N, C)
        # Without lengths all frames are valid, which is the common case.
        own_lens = lens if bool((lens != x.size(0)).any()) else None
        out, state = self.encoder(x, state, own_lens, self.warmup)
        return out.transpose(0, 1), lens, state

    def _embedded(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder_embed(x).transpose(0, 1)
        # Under autocast too the layers add their results up in the type of the weights.
        return out.to(self.encoder_embed.out.weight.dtype)


class LstmStack(nn.Module):
    """The layers; in training the outputs of some of them are mixed.

    Args:
        layer: what all layers are copies of.
        num_layers: L.
        aux_layer_period: see `aux_layers`.
    """

    def __init__(self, layer: LstmLayer, num_layers: int, aux_layer_period: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.aux_layers = aux_layers(num_layers, aux_layer_period)
        self.combiner: RandomCombine | None = None
        if len(self.aux_layers) > 1:
            self.combiner = RandomCombine(len(self.aux_layers))

    def forward(
        self, x: Tensor, state: LstmState, x_lens: Tensor | None, warmup: float
    ) -> tuple[Tensor, LstmState]:
        """All frames of a batch.

        Args:
            x: (T, N, C).
            state: of the same N streams, at the frame before the first one.
            x_lens: (N,) int64 frames after which the streams' new states are taken; None: all.
            warmup: see `Lstm`.

        Returns:
            (T, N, C) and the new state.
        """
        combined: list[Tensor] = []
        new_h, new_c = [], []
        for i, layer in enumerate(self.layers):
            h, c = state.h[:, i], state.c[:, i]
            x, hs, cs = layer(x, h, c, warmup)
            new_h.append(state_after(hs, h, x_lens))
            new_c.append(state_after(cs, c, x_lens))
            if self.combiner is not None and i in self.aux_layers:
                combined.append(x)
        if self.combiner is not None:
            x = self.combiner(combined)
        # No gradient comes through a state: training on it would silently ignore the past.
        return x, LstmState(torch.stack(new_h, dim=1).detach(), torch.stack(new_c, dim=1).detach())


def _out_lens(x_lens: Tensor) -> Tensor:
    return (x_lens - _OVERLAP).div(4, rounding_mode="floor").clamp(min=0)
