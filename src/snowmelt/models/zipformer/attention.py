"""How does a Zipformer layer gather information across frames? Attention with relative positions.

One set of attention weights is used twice: `forward` computes it and applies it, `forward2` applies
it again, later in the layer, to new values.

Invariant: (T, N, C) in and out. The arithmetic is in `attention_math`, the same for dense, banded
and streamed input.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import math
import random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.models.regularisers import Whiten, scaled_linear
from snowmelt.models.zipformer.attention_math import apply_weights, attention_weights
from snowmelt.models.zipformer.windows import Windows

__all__ = ["RelPositionMultiheadAttention", "RelPositionalEncoding"]

# Rows of the first positional table: 20 s of 20 ms frames; a longer input makes it grow.
_INITIAL_FRAMES: Final = 1000

_SCORE_LIMIT: Final = 25.0
_SCORE_PENALTY: Final = 1.0e-4
_SCORE_PENALTY_PROB: Final = 0.1


class RelPositionalEncoding(nn.Module):
    """Sinusoids of signed distances between a query and a key, shared by the layers of a stack.

    Args:
        d_model: C, even.
        dropout_rate: on the result, in training.
    """

    table: Tensor

    def __init__(self, d_model: int, dropout_rate: float) -> None:
        super().__init__()
        self.d_model = d_model
        self.dropout = nn.Dropout(dropout_rate)
        self.register_buffer("table", _sinusoids(_INITIAL_FRAMES, d_model), persistent=False)

    def forward(self, x: Tensor, left_context_len: int = 0) -> Tensor:
        """The encoding of every distance that x.size(0) queries can have to their keys.

        Args:
            x: (T, N, C) or anything else with T frames on its first axis, of the wanted type.
            left_context_len: L, keys to the left of the first query.

        Returns:
            (1, 2 * T - 1 + L, C): row r holds the distance T + L - 1 - r of a key in the past.
        """
        return self.rows(x.size(0), left_context_len, x)

    def rows(self, num_queries: int, num_left: int, like: Tensor) -> Tensor:
        """As `forward`, for `num_queries` queries and in the type of `like`."""
        longest = num_queries + num_left
        num_frames = (self.table.size(0) + 1) // 2
        if num_frames < longest:
            num_frames = max(longest, 2 * num_frames)
            self.table = _sinusoids(num_frames, self.d_model).to(self.table)
        start = num_frames - longest
        rows = self.table[start : start + 2 * num_queries - 1 + num_left]
        out: Tensor = self.dropout(rows.to(like).unsqueeze(0))
        return out


class RelPositionMultiheadAttention(nn.Module):
    """Multi-head attention whose scores add a content part and a small positional part.

    Args:
        embed_dim: C.
        attention_dim: A, of all heads' queries; values have A / 2.
        num_heads: H.
        pos_dim: size of a head's positional query.
        dropout: on the attention weights; the Zipformer has none.
    """

    def __init__(
        self, embed_dim: int, attention_dim: int, num_heads: int, pos_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        assert attention_dim % (2 * num_heads) == 0, (attention_dim, num_heads)
        self.embed_dim = embed_dim
        self.attention_dim = attention_dim
        self.num_heads = num_heads
        self.head_dim = attention_dim // num_heads
        self.pos_dim = pos_dim
        self.dropout = dropout
        value_dim = attention_dim // 2
        # Queries and keys are not divided by sqrt(head_dim): the start values do that, less
        # strictly, and the optimiser's speed does not depend on it.
        self.in_proj = scaled_linear(
            embed_dim,
            2 * attention_dim + value_dim + pos_dim * num_heads,
            initial_scale=self.head_dim**-0.25,
        )
        self.whiten_values = Whiten(num_heads, 2.0, prob=(0.025, 0.25), grad_scale=0.025)
        self.whiten_keys = Whiten(num_heads, 2.0, prob=(0.025, 0.25), grad_scale=0.025)
        self.linear_pos = scaled_linear(
            embed_dim, num_heads * pos_dim, bias=False, initial_scale=0.05
        )
        self.out_proj = scaled_linear(value_dim, embed_dim, initial_scale=0.05)
        self.in_proj2 = nn.Linear(embed_dim, value_dim, bias=False)
        self.out_proj2 = scaled_linear(value_dim, embed_dim, initial_scale=0.05)
        self.whiten_values2 = Whiten(num_heads, 2.0, prob=(0.025, 0.25), grad_scale=0.025)

    def forward(self, x: Tensor, pos_emb: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        """First pass over whole utterances.

        Args:
            x: (T, N, C).
            pos_emb: (1, 2 * S - 1 + L, C) from `RelPositionalEncoding`.
            windows: which keys each query sees.

        Returns:
            (T, N, C) and the weights (B, N, H, S, L + S) for `forward2`.
        """
        q, k, v, p = self._project(x)
        weights = self._weights(q, k, p, pos_emb, windows)
        return self.out_proj(apply_weights(weights, v, windows)), weights

    def forward2(self, x: Tensor, weights: Tensor, windows: Windows) -> Tensor:
        """Second pass: the weights of `forward` on new values of x (T, N, C)."""
        v = self.whiten_values2(self.in_proj2(x))
        out: Tensor = self.out_proj2(apply_weights(weights, v, windows))
        return out

    def stream(
        self,
        x: Tensor,
        pos_emb: Tensor,
        windows: Windows,
        cached_key: Tensor,
        cached_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First pass over the next frames of streams.

        Args:
            x: (T, N, C).
            pos_emb: as in `forward`.
            windows: which keys each query sees, the L cached ones included.
            cached_key: (L, N, A).
            cached_value: (L, N, A / 2).

        Returns:
            (T, N, C), the weights, all keys (L + T, N, A) and all values (L + T, N, A / 2).
        """
        q, k, v, p = self._project(x)
        k = torch.cat([cached_key, k])
        v = torch.cat([cached_value, v])
        weights = self._weights(q, k, p, pos_emb, windows)
        return self.out_proj(apply_weights(weights, v, windows)), weights, k, v

    def stream2(
        self, x: Tensor, weights: Tensor, windows: Windows, cached_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Second pass: (T, N, C) and all second values (L + T, N, A / 2)."""
        v = torch.cat([cached_value, self.in_proj2(x)])
        return self.out_proj2(apply_weights(weights, v, windows)), v

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sizes = [self.attention_dim, self.attention_dim, self.attention_dim // 2]
        sizes.append(self.num_heads * self.pos_dim)
        q, k, v, p = self.in_proj(x).split(sizes, dim=-1)
        return q, self.whiten_keys(k), self.whiten_values(v), p

    def _weights(
        self, q: Tensor, k: Tensor, p: Tensor, pos_emb: Tensor, windows: Windows
    ) -> Tensor:
        pos = self.linear_pos(pos_emb[0]).view(-1, self.num_heads, self.pos_dim)
        is_penalised = self.training and random.random() < _SCORE_PENALTY_PROB
        weights = attention_weights(
            q,
            k,
            p,
            pos,
            windows,
            score_limit=_SCORE_LIMIT if is_penalised else None,
            score_penalty=_SCORE_PENALTY,
        )
        return F.dropout(weights, self.dropout, self.training) if self.dropout > 0.0 else weights


def _sinusoids(num_frames: int, d_model: int) -> Tensor:
    """(2 * num_frames - 1, C) float32: row r encodes the distance num_frames - 1 - r."""
    distance = torch.arange(num_frames - 1, -num_frames, -1, dtype=torch.float32).unsqueeze(1)
    even = torch.arange(0, d_model, 2, dtype=torch.float32)
    angle = distance * torch.exp(even * (-math.log(10000.0) / d_model))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(start_dim=1)
