"""What is the arithmetic of the attention? Queries and keys to weights, weights and values to sums.

Invariant: pure functions, one meaning in two forms: a few torch operations for every device and
type, and for training on the CPU one with fewer passes over memory (`attention_cpu`). Weights are
(B, N, H, S, W) in the terms of `Windows`; a query that sees no key has weights 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.models.regularisers import penalize_abs_values_gt, softmax
from snowmelt.models.zipformer.packing import pack, unpack
from snowmelt.models.zipformer.windows import Windows, forbidden_keys

__all__ = ["apply_weights", "attention_weights", "shift_to_keys"]


def attention_weights(
    q: Tensor,
    k: Tensor,
    p: Tensor,
    pos: Tensor,
    windows: Windows,
    *,
    score_limit: float | None = None,
    score_penalty: float = 0.0,
) -> Tensor:
    """Softmax of content and positional scores over the keys that each query sees.

    Args:
        q: (T, N, H * D) queries.
        k: (T, N, H * D) keys, or (L + T, N, H * D) with the cached ones before them.
        p: (T, N, H * P) positional queries.
        pos: (2 * S - 1 + L, H, P) positional keys; row r is for the distance S + L - 1 - r.
        windows: which keys each query sees; with their packing q, k and p are (M, 1, ...).
        score_limit: larger absolute scores are penalised in the gradient; None: none are.
        score_penalty: see `penalize_abs_values_gt`.

    Returns:
        (B, N, H, S, W).
    """
    if _trains_on_cpu(q, windows):
        from snowmelt.models.zipformer import attention_cpu

        return attention_cpu.attention_weights(q, k, p, pos, windows, score_limit, score_penalty)
    if windows.packing is not None:
        q, k, p = (unpack(x, windows.packing) for x in (q, k, p))
    num_heads = pos.size(1)
    q_blocks = _blocks(_query_heads(q, num_heads, windows), windows)
    content = torch.matmul(q_blocks, _key_windows(k, num_heads, windows))
    by_distance = torch.matmul(_query_heads(p, num_heads, windows), pos.permute(1, 2, 0))
    scores = content + shift_to_keys(_blocks(by_distance, windows), windows.left + windows.block)
    forbidden = windows.forbidden
    if forbidden is None:
        forbidden = forbidden_keys(windows)
    # Not -inf: a query that sees nothing must not become NaN.
    scores = scores.masked_fill(forbidden, torch.finfo(scores.dtype).min)
    if score_limit is not None:  # behind the mask: its backward keeps the penalty off unseen keys
        scores = penalize_abs_values_gt(scores, score_limit, score_penalty)
    return softmax(scores, dim=-1).masked_fill(forbidden, 0.0)


def apply_weights(weights: Tensor, v: Tensor, windows: Windows) -> Tensor:
    """Weighted sums of values.

    Args:
        weights: (B, N, H, S, W).
        v: (T, N, H * D), or (L + T, N, H * D) with the cached ones before them.
        windows: those of the weights; with their packing v is (M, 1, H * D).

    Returns:
        (T, N, H * D), or (M, 1, H * D).
    """
    if _trains_on_cpu(v, windows):
        from snowmelt.models.zipformer import attention_cpu

        return attention_cpu.apply_weights(weights, v, windows)
    if windows.packing is not None:
        v = unpack(v, windows.packing)
    values = _key_windows(v, weights.size(2), windows).transpose(-1, -2)
    summed = _from_blocks(torch.matmul(weights, values), windows)
    return summed if windows.packing is None else pack(summed, windows.packing)


def shift_to_keys(by_distance: Tensor, num_keys: int) -> Tensor:
    """(..., S, S - 1 + W) by distance to (..., S, W) by key: out[i, j] = in[i, S - 1 - i + j].

    A view: row i of the result begins one element further left in each row.
    """
    num_queries, num_distances = by_distance.shape[-2:]
    if num_queries == 1:
        return by_distance
    flat = by_distance.flatten(start_dim=-2)
    flat = flat[..., num_queries - 1 : num_queries * num_distances - 1]
    return flat.view(*flat.shape[:-1], num_queries, num_distances - 1)[..., :num_keys]


def _trains_on_cpu(x: Tensor, windows: Windows) -> bool:
    """True if there is a gradient to compute and `attention_cpu` can; importing it loads numba."""
    if not (torch.is_grad_enabled() and x.requires_grad) or windows.forbidden is not None:
        return False
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


def _query_heads(x: Tensor, num_heads: int, windows: Windows) -> Tensor:
    """(T, N, H * D) to (N, H, B * S, D), zeros behind the frames."""
    return _heads(x, num_heads, 0, windows.num_blocks * windows.block - windows.num_frames)


def _key_heads(x: Tensor, num_heads: int, windows: Windows) -> Tensor:
    """(T, N, H * D) or (L + T, N, H * D) to (N, H, L + B * S, D), zeros round the frames."""
    num_missing = windows.left + windows.num_frames - x.size(0)
    return _heads(
        x, num_heads, num_missing, windows.num_blocks * windows.block - windows.num_frames
    )


def _heads(x: Tensor, num_heads: int, before: int, behind: int) -> Tensor:
    if before + behind > 0:
        x = F.pad(x, (0, 0, 0, 0, before, behind))
    num_frames, batch_size, channels = x.shape
    x = x.view(num_frames, batch_size, num_heads, channels // num_heads)
    return x.permute(1, 2, 0, 3)


def _blocks(x: Tensor, windows: Windows) -> Tensor:
    """(N, H, B * S, D) to (B, N, H, S, D)."""
    batch_size, num_heads, _, dim = x.shape
    x = x.reshape(batch_size, num_heads, windows.num_blocks, windows.block, dim)
    return x.permute(2, 0, 1, 3, 4)


def _from_blocks(x: Tensor, windows: Windows) -> Tensor:
    """(B, N, H, S, D) to (T, N, H * D)."""
    num_blocks, batch_size, num_heads, block, dim = x.shape
    x = x.permute(0, 3, 1, 2, 4).reshape(num_blocks * block, batch_size, num_heads * dim)
    return x[: windows.num_frames]


def _key_windows(x: Tensor, num_heads: int, windows: Windows) -> Tensor:
    """(T or L + T, N, H * D) to (B, N, H, D, W), neighbouring windows overlapping."""
    x = _key_heads(x, num_heads, windows)
    if windows.num_blocks == 1:
        return x.transpose(-1, -2).unsqueeze(0)
    return x.unfold(2, windows.left + windows.block, windows.block).permute(2, 0, 1, 3, 4)
