"""Which frames does a frame attend to, how strongly, and which may it not see?

Invariant: what a stream has not heard yet is forbidden by the count of frames that its state holds,
not by inputs of its own.
"""

import math

import torch
from torch import Tensor, nn

from snowmelt.models.zipformer.attention import RelPositionMultiheadAttention

__all__ = ["InferenceAttention", "forbidden_keys", "positional_encoding"]


class InferenceAttention(nn.Module):
    """Attention with relative positions, whose weights serve two sets of values."""

    def __init__(self, attention: RelPositionMultiheadAttention) -> None:
        super().__init__()
        self.num_heads: int = attention.num_heads
        self.pos_dim: int = attention.pos_dim
        width = attention.attention_dim
        self.sizes = [width, width, width // 2, attention.num_heads * attention.pos_dim]
        self.in_proj = attention.in_proj
        self.linear_pos = attention.linear_pos
        self.out_proj = attention.out_proj
        self.in_proj2 = attention.in_proj2
        self.out_proj2 = attention.out_proj2

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        forbidden: Tensor,
        cached_key: Tensor,
        cached_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(T, N, C), weights (N, H, T, W), all keys and all values (W, N, .)."""
        q, k, v, p = self.in_proj(x).split(self.sizes, dim=-1)
        k = torch.cat([cached_key, k])
        v = torch.cat([cached_value, v])
        scores = torch.matmul(self._heads(q, 0, 2, 3), self._heads(k, 2, 3, 0))
        pos = self.linear_pos(positions).view(-1, self.num_heads, self.pos_dim)
        by_distance = torch.matmul(self._heads(p, 0, 2, 3), pos.permute(1, 2, 0))
        scores = scores + _by_key(by_distance, int(q.size(0)), int(k.size(0)))
        # Far below every score, and a half-precision number: 0 after the softmax.
        weights = scores.masked_fill(forbidden, -6.0e4).softmax(-1)
        return self.out_proj(self._sums(weights, v)), weights, k, v

    @torch.jit.export
    def again(self, x: Tensor, weights: Tensor, cached_value: Tensor) -> tuple[Tensor, Tensor]:
        """The same weights on new values: (T, N, C) and all values."""
        v = torch.cat([cached_value, self.in_proj2(x)])
        return self.out_proj2(self._sums(weights, v)), v

    def _heads(self, x: Tensor, time: int, a: int, b: int) -> Tensor:
        """(T, N, H * D) to (N, H, T, D), or with time 2 to (N, H, D, T)."""
        x = x.reshape(int(x.size(0)), -1, self.num_heads, int(x.size(2)) // self.num_heads)
        if time == 0:
            return x.permute(1, 2, 0, 3)
        return x.permute(1, 2, 3, 0)

    def _sums(self, weights: Tensor, v: Tensor) -> Tensor:
        y = torch.matmul(weights, self._heads(v, 0, 2, 3)).permute(2, 0, 1, 3)  # (T, N, H, D)
        return y.flatten(2)


def forbidden_keys(
    num_frames: int,
    left: int,
    chunk: int,
    num_left_chunks: int,
    seen: Tensor,
    lens: Tensor | None,
) -> Tensor:
    """(N, 1, T or 1, L + T) bool, True where a query must not see a key."""
    key = torch.arange(-left, num_frames, device=seen.device)
    forbidden = key < -seen.unsqueeze(1)  # before the stream began
    if lens is not None:
        forbidden = forbidden | (key >= lens.unsqueeze(1))
    forbidden = forbidden.unsqueeze(1).unsqueeze(1)
    if num_frames > chunk:
        query = torch.arange(num_frames, device=seen.device).unsqueeze(1)
        ahead = key.div(chunk, rounding_mode="floor") - query.div(chunk, rounding_mode="floor")
        forbidden = forbidden | (ahead > 0) | (ahead < -num_left_chunks)
    return forbidden


def positional_encoding(num_frames: int, left: int, d_model: int, like: Tensor) -> Tensor:
    """(2 * T - 1 + L, C): row r encodes the distance T + L - 1 - r of a key in the past."""
    longest = num_frames + left
    distance = torch.arange(longest - 1, -num_frames, -1, device=like.device).unsqueeze(1)
    even = torch.arange(0, d_model, 2, device=like.device)
    rate = torch.exp(even.to(torch.float32) * (-math.log(10000.0) / d_model))
    angle = distance.to(torch.float32) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


def _by_key(by_distance: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """(N, H, T, T - 1 + W) to (N, H, T, W): out[i, j] = in[i, T - 1 - i + j]."""
    if num_queries == 1:
        return by_distance
    num_distances = num_queries - 1 + num_keys
    # Row i of the result begins one element further left in each row.
    flat = by_distance.flatten(2)[:, :, num_queries - 1 : num_queries * num_distances - 1]
    rows: Tensor = flat.unflatten(2, [num_queries, num_distances - 1])
    return rows[:, :, :, :num_keys]
