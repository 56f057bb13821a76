"""What does one layer of the encoder do? LSTM, feed-forward, norm, and a part of its own input.

Invariant: (T, N, C) in and out, causal: frame t depends on frames 0 ... t. In evaluation a layer is
a function of its arguments; in training it may count for a tenth.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/lstm.py, RNNEncoderLayer.
"""

import random
from typing import Final

from torch import Tensor, nn

from snowmelt.models.lstm.projected import ProjectedLstm, ScaledLstm
from snowmelt.models.regularisers import BasicNorm, DoubleSwish, Dropout, ThresholdBalancer
from snowmelt.models.scaled_layers import ScaledLinear

__all__ = ["LstmLayer"]

# The share of a layer at the very beginning of training, and whenever it is dropped.
_LEAST_SHARE: Final = 0.1


class LstmLayer(nn.Module):
    """LSTM and feed-forward with residuals, then a norm.

    Args:
        d_model: C.
        rnn_hidden_size: cells, projected to d_model if there are more.
        dim_feedforward: channels inside the feed-forward.
        dropout: probability, on the LSTM's output and twice in the feed-forward.
        layer_dropout: how often in training the layer counts for a tenth only.
        grad_norm_threshold: see `filter_gradients`.
    """

    lstm: ProjectedLstm

    def __init__(
        self,
        d_model: int,
        rnn_hidden_size: int,
        dim_feedforward: int,
        dropout: float,
        layer_dropout: float,
        grad_norm_threshold: float,
    ) -> None:
        super().__init__()
        self.layer_dropout = layer_dropout
        self.lstm = ScaledLstm(
            d_model,
            rnn_hidden_size,
            d_model if rnn_hidden_size > d_model else 0,
            grad_norm_threshold=grad_norm_threshold,
        )
        self.feed_forward = nn.Sequential(
            ScaledLinear(d_model, dim_feedforward),
            ThresholdBalancer(channel_dim=-1),
            DoubleSwish(),
            Dropout(dropout),
            ScaledLinear(dim_feedforward, d_model, initial_scale=0.25),
        )
        self.norm_final = BasicNorm(d_model, clamp_prob=0.0)
        self.balancer = ThresholdBalancer(
            channel_dim=-1, min_positive=0.45, max_positive=0.55, max_abs=6.0
        )
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, warmup: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All frames of a batch.

        Args:
            x: (T, N, C).
            h: (N, C), the LSTM's output at the frame before the first one.
            c: (N, H), its cells there.
            warmup: how far training has come, 0 at its beginning.

        Returns:
            (T, N, C), and h and c at every frame, (T, N, .).
        """
        hs, cs = self.lstm(x, h, c)
        y = x + self.dropout(hs)
        y = y + self.dropout(self.feed_forward(y))
        y = self.norm_final(self.balancer(y))
        share = self._share(warmup)
        return (y if share == 1.0 else share * y + (1.0 - share) * x), hs, cs

    def _share(self, warmup: float) -> float:
        """How much of the output is the layer's work; the rest is its input."""
        if not self.training:
            return 1.0
        is_dropped = self.layer_dropout > 0.0 and random.random() < self.layer_dropout
        return _LEAST_SHARE if is_dropped else min(_LEAST_SHARE + warmup, 1.0)
