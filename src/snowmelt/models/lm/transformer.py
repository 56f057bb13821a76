"""What does a transformer language model remember? Keys and values of the last few tokens.

Attention sees the present token and up to `context_len - 1` before it; what is further away counts
less, by a slope of each head's own. There are no positions, so a stream may go on for ever, and a
layer reaches as far back in training as in a search.

Invariant: see `models.lm.model`.

Source: Press et al., Train Short, Test Long: Attention with Linear Biases Enables Input Length
Extrapolation, 2022 (the slopes); Xiong et al., On Layer Normalization in the Transformer
Architecture, 2020 (the place of the normalisation).
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TransformerCore", "TransformerLmState"]


# Of the output, before the first step.
_INITIAL_SCALE: Final = 0.25


class TransformerLmState(NamedTuple):
    """N streams, of which the last `lens` of T places are used.

    Attributes:
        keys: (N, num_layers, T, C), T below context_len.
        values: (N, num_layers, T, C).
        lens: (N,) int64.
    """

    keys: Tensor
    values: Tensor
    lens: Tensor


class TransformerCore(nn.Module):
    """Layers of windowed attention and feed-forward.

    Args:
        dim: C, channels in and out.
        nhead: heads, which divide C.
        dim_feedforward: inner channels of the feed-forward part.
        num_layers: layers.
        context_len: tokens that a layer sees, the present one included.
        dropout: in training.
    """

    def __init__(
        self,
        dim: int,
        nhead: int,
        dim_feedforward: int,
        num_layers: int,
        context_len: int,
        *,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_dim = self.output_dim = dim
        self.nhead = nhead
        self.context_len = context_len
        self.layers = nn.ModuleList(
            _Layer(dim, nhead, dim_feedforward, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        # Where outputs are compared with the vectors that come in, a token would else be the best
        # guess of its own successor by far, which takes long to forget.
        nn.init.constant_(self.norm.weight, _INITIAL_SCALE)

    def init_state(self, num_streams: int, like: Tensor) -> TransformerLmState:
        """See `Core`."""
        nothing = like.new_zeros(num_streams, len(self.layers), 0, self.input_dim)
        lens = torch.zeros(num_streams, dtype=torch.int64, device=like.device)
        return TransformerLmState(nothing, nothing, lens)

    def forward(self, x: Tensor, state: TransformerLmState) -> tuple[Tensor, TransformerLmState]:
        """See `Core`."""
        bias = self._bias(x, state)
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            x, key, value = layer(x, state.keys[:, i], state.values[:, i], bias)
            keys.append(key)
            values.append(value)
        num_kept = min(keys[0].size(1), self.context_len - 1)
        first = keys[0].size(1) - num_kept
        return self.norm(x), TransformerLmState(
            torch.stack([key[:, first:] for key in keys], dim=1),
            torch.stack([value[:, first:] for value in values], dim=1),
            (state.lens + x.size(1)).clamp(max=self.context_len - 1),
        )

    def stack(self, states: Sequence[TransformerLmState]) -> TransformerLmState:
        """See `Core`; shorter memories get empty places in front."""
        longest = max(state.keys.size(2) for state in states)

        def padded(memory: Tensor) -> Tensor:
            return F.pad(memory, (0, 0, longest - memory.size(2), 0))

        return TransformerLmState(
            torch.cat([padded(state.keys) for state in states]),
            torch.cat([padded(state.values) for state in states]),
            torch.cat([state.lens for state in states]),
        )

    def unstack(self, state: TransformerLmState) -> list[TransformerLmState]:
        """See `Core`."""
        num_places = state.keys.size(2)
        return [
            TransformerLmState(
                state.keys[n : n + 1, :, num_places - num :].clone(),
                state.values[n : n + 1, :, num_places - num :].clone(),
                state.lens[n : n + 1].clone(),
            )
            for n, num in enumerate(state.lens.tolist())
        ]

    def _bias(self, x: Tensor, state: TransformerLmState) -> Tensor:
        """(N or 1, H, S, T + S): what is added to attention scores; -inf for what is not seen."""
        num_new, num_old = x.size(1), state.keys.size(2)
        places = torch.arange(num_old + num_new, device=x.device)
        distances = (num_old + torch.arange(num_new, device=x.device))[:, None] - places  # (S, T+S)
        is_seen = ((distances >= 0) & (distances < self.context_len))[None]
        if num_old:
            is_seen = is_seen & (places >= num_old - state.lens[:, None])[:, None]
        slopes = torch.exp2(-8.0 / self.nhead * torch.arange(1, self.nhead + 1, device=x.device))
        bias = -slopes.to(x.dtype)[:, None, None] * distances.clamp(min=0).to(x.dtype)
        return bias.masked_fill(~is_seen[:, None], -math.inf)


class _Layer(nn.Module):
    def __init__(self, dim: int, nhead: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.nhead = nhead
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim_feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim_feedforward, dim),
        )

    def forward(
        self, x: Tensor, old_keys: Tensor, old_values: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, S, C) and (N, T, C) of the memory -> (N, S, C), keys and values (N, T + S, C)."""
        query, key, value = self.in_proj(self.attention_norm(x)).chunk(3, dim=-1)
        keys = torch.cat([old_keys.to(key.dtype), key], dim=1)
        values = torch.cat([old_values.to(value.dtype), value], dim=1)
        attended = F.scaled_dot_product_attention(
            self._heads(query),
            self._heads(keys),
            self._heads(values),
            attn_mask=bias.to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        x = x + self._drop(self.out_proj(attended.transpose(1, 2).flatten(2)))
        x = x + self._drop(self.feed_forward(x))
        return x, keys, values

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _heads(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, H, T, C / H)."""
        heads: Tensor = x.unflatten(2, (self.nhead, -1)).transpose(1, 2)
        return heads
