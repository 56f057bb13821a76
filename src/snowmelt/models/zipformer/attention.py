"""How does a Zipformer layer gather information across frames? Attention with relative positions.

One set of attention weights is used twice: `forward` computes it and applies it, `forward2` applies
it again, later in the layer, to new values.

Invariant: (T, N, C) in and out. Weights are (N, H, B, S, L + S), the layout of `Windows`; the
arithmetic is in pure functions and is the same for dense, banded and streamed input.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import math
import random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.models.regularisers import Whiten, penalize_abs_values_gt, scaled_linear, softmax
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
            (T, N, C) and the weights (N, H, B, S, L + S) for `forward2`.
        """
        q, k, v, p = self._project(x)
        weights = self._weights(
            _pad_queries(q, windows), _pad_keys(k, windows), _pad_queries(p, windows), pos_emb,
            windows,
        )
        return self.out_proj(apply_weights(weights, _pad_keys(v, windows), windows)), weights

    def forward2(self, x: Tensor, weights: Tensor, windows: Windows) -> Tensor:
        """Second pass: the weights of `forward` on new values of x (T, N, C)."""
        v = self.whiten_values2(self.in_proj2(x))
        out: Tensor = self.out_proj2(apply_weights(weights, _pad_keys(v, windows), windows))
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
        weights = self._weights(
            _pad_queries(q, windows), _pad_end(k, windows), _pad_queries(p, windows), pos_emb,
            windows,
        )
        out = self.out_proj(apply_weights(weights, _pad_end(v, windows), windows))
        return out, weights, k, v

    def stream2(
        self, x: Tensor, weights: Tensor, windows: Windows, cached_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Second pass: (T, N, C) and all second values (L + T, N, A / 2)."""
        v = torch.cat([cached_value, self.in_proj2(x)])
        return self.out_proj2(apply_weights(weights, _pad_end(v, windows), windows)), v

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sizes = [self.attention_dim, self.attention_dim, self.attention_dim // 2]
        sizes.append(self.num_heads * self.pos_dim)
        q, k, v, p = self.in_proj(x).split(sizes, dim=-1)
        return q, self.whiten_keys(k), self.whiten_values(v), p

    def _weights(
        self, q: Tensor, k: Tensor, p: Tensor, pos_emb: Tensor, windows: Windows
    ) -> Tensor:
        pos = self.linear_pos(pos_emb[0]).unflatten(-1, (self.num_heads, self.pos_dim))
        scores = attention_scores(q, k, p, pos, windows)
        if self.training and random.random() < _SCORE_PENALTY_PROB:
            scores = penalize_abs_values_gt(scores, _SCORE_LIMIT, _SCORE_PENALTY)
        weights = masked_softmax(scores, windows)
        return F.dropout(weights, self.dropout, self.training) if self.dropout > 0.0 else weights


def attention_scores(q: Tensor, k: Tensor, p: Tensor, pos: Tensor, windows: Windows) -> Tensor:
    """Content and positional scores of every query with the keys of its window.

    Args:
        q: (B * S, N, A).
        k: (L + B * S, N, A).
        p: (B * S, N, H * P), positional queries.
        pos: (2 * S - 1 + L, H, P), positional keys by distance.
        windows: B, S and L.

    Returns:
        (N, H, B, S, L + S).
    """
    num_heads = pos.size(1)
    content = torch.matmul(_blocks(q, num_heads, windows), _key_windows(k, num_heads, windows))
    by_distance = torch.matmul(  # (N, H, B * S, 2S - 1 + L)
        _heads(p, num_heads), pos.permute(1, 2, 0)
    ).unflatten(2, (windows.num_blocks, windows.block))
    return content + shift_to_keys(by_distance, windows.left + windows.block)


def shift_to_keys(by_distance: Tensor, num_keys: int) -> Tensor:
    """(..., S, S - 1 + W) by distance to (..., S, W) by key: out[i, j] = in[i, S - 1 - i + j].

    A view: row i of the result begins one element further left in each row.
    """
    num_queries, num_distances = by_distance.shape[-2:]
    if num_queries == 1:
        return by_distance
    flat = by_distance.flatten(start_dim=-2)
    flat = flat[..., num_queries - 1 : num_queries * num_distances - 1]
    return flat.unflatten(-1, (num_queries, num_distances - 1))[..., :num_keys]


def masked_softmax(scores: Tensor, windows: Windows) -> Tensor:
    """Softmax over the keys that may be seen; forbidden ones get weight 0."""
    if windows.forbidden is not None:
        # Not -inf: a padding query that sees nothing must not become NaN.
        scores = scores.masked_fill(windows.forbidden, torch.finfo(scores.dtype).min)
    weights = softmax(scores, dim=-1)
    if windows.dead_queries is not None:
        weights = weights.masked_fill(windows.dead_queries, 0.0)
    return weights


def apply_weights(weights: Tensor, v: Tensor, windows: Windows) -> Tensor:
    """Weighted sums of values.

    Args:
        weights: (N, H, B, S, L + S).
        v: (L + B * S, N, H * D).
        windows: T, B, S and L.

    Returns:
        (T, N, H * D).
    """
    num_heads = weights.size(1)
    out = torch.matmul(weights, _key_windows(v, num_heads, windows).transpose(-1, -2))
    out = out.permute(2, 3, 0, 1, 4).flatten(start_dim=3).flatten(end_dim=1)  # (B * S, N, H * D)
    return out[: windows.num_frames]


def _heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)  # (N, H, frames, D)


def _blocks(x: Tensor, num_heads: int, windows: Windows) -> Tensor:
    return _heads(x, num_heads).unflatten(2, (windows.num_blocks, windows.block))


def _key_windows(x: Tensor, num_heads: int, windows: Windows) -> Tensor:
    """(L + B * S, N, H * D) to (N, H, B, D, L + S), neighbouring windows overlapping."""
    x = _heads(x, num_heads)
    if windows.num_blocks == 1:
        return x.transpose(-1, -2).unsqueeze(2)
    return x.unfold(2, windows.left + windows.block, windows.block)


def _pad_queries(x: Tensor, windows: Windows) -> Tensor:
    return _pad_end(x, windows)


def _pad_keys(x: Tensor, windows: Windows) -> Tensor:
    missing = windows.num_blocks * windows.block - windows.num_frames
    if windows.left == 0 and missing == 0:
        return x
    return F.pad(x, (0, 0, 0, 0, windows.left, missing))


def _pad_end(x: Tensor, windows: Windows) -> Tensor:
    missing = windows.num_blocks * windows.block - windows.num_frames
    return x if missing == 0 else F.pad(x, (0, 0, 0, 0, 0, missing))


def _sinusoids(num_frames: int, d_model: int) -> Tensor:
    """(2 * num_frames - 1, C) float32: row r encodes the distance num_frames - 1 - r."""
    distance = torch.arange(num_frames - 1, -num_frames, -1, dtype=torch.float32).unsqueeze(1)
    even = torch.arange(0, d_model, 2, dtype=torch.float32)
    angle = distance * torch.exp(even * (-math.log(10000.0) / d_model))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(start_dim=1)
