"""How is the attention trained on the CPU with few passes over memory?

Per block one batched matrix product straight from the overlapping windows of the keys, without
copies of them; positions, masks and softmax in one compiled loop (`attention_kernels`); gradients
written out by hand, so that nothing but the weights is kept.

Invariant: the same numbers as the torch form in `attention_math`, to rounding; results have the
type of the queries or values. Products of bfloat16 stay bfloat16 where the processor gains from it,
and so do scores and weights, as under the original's autocast; elsewhere they are in float32.
Positions and softmax always are.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowmelt.models.cpu_elements import as_array
from snowmelt.models.half_products import bf16_is_faster
from snowmelt.models.zipformer import attention_kernels
from snowmelt.models.zipformer.windows import Windows

__all__ = ["apply_weights", "attention_weights"]


def attention_weights(
    q: Tensor,
    k: Tensor,
    p: Tensor,
    pos: Tensor,
    windows: Windows,
    score_limit: float | None,
    score_penalty: float,
) -> Tensor:
    """As `attention_math.attention_weights`; weights in the type of the products."""
    weights: Tensor = _WeightsFunction.apply(  # type: ignore[no-untyped-call]
        q, k, p, pos, windows, score_limit, score_penalty
    )
    return weights


def apply_weights(weights: Tensor, v: Tensor, windows: Windows) -> Tensor:
    """As `attention_math.apply_weights`."""
    summed: Tensor = _ApplyFunction.apply(weights, v, windows)  # type: ignore[no-untyped-call]
    return summed


class _WeightsFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        p: Tensor,
        pos: Tensor,
        windows: Windows,
        limit: float | None,
        penalty: float,
    ) -> Tensor:
        num_heads = pos.size(1)
        dtype = _product_dtype(q)
        q_heads = _query_heads(q, num_heads, windows, dtype)
        k_heads = _key_heads(k, num_heads, windows, dtype)
        p_heads = _query_heads(p, num_heads, windows, torch.float32)
        pos_heads = pos.float().permute(1, 2, 0).contiguous()
        scores = _scores(q_heads, k_heads, windows)
        excess = np.zeros(scores.shape if limit is not None else (0,) * 5, dtype=np.int8)
        attention_kernels.softmax_with_positions(
            as_array(scores),
            p_heads.numpy(),
            pos_heads.numpy(),
            windows.first.numpy(),
            windows.last.numpy(),
            np.float32(0.0 if limit is None else limit),
            excess,
        )
        ctx.save_for_backward(q_heads, k_heads, p_heads, pos_heads, scores)
        ctx.windows, ctx.excess, ctx.penalty = windows, excess, penalty
        ctx.types = q.dtype, k.dtype, p.dtype, pos.dtype
        ctx.num_keys = windows.num_frames if windows.packing else k.size(0)
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        q_heads, k_heads, p_heads, pos_heads, weights = ctx.saved_tensors
        windows: Windows = ctx.windows
        grad_scores = torch.empty_like(weights)
        grad_p = torch.empty_like(p_heads)
        grad_pos = torch.zeros_like(pos_heads)
        attention_kernels.softmax_with_positions_gradient(
            as_array(weights),
            as_array(grad_outputs[0].to(weights.dtype).contiguous()),
            as_array(grad_scores),
            p_heads.numpy(),
            pos_heads.numpy(),
            windows.first.numpy(),
            windows.last.numpy(),
            np.float32(ctx.penalty),
            ctx.excess,
            grad_p.numpy(),
            grad_pos.numpy(),
        )
        q_type, k_type, p_type, pos_type = ctx.types
        return (
            _sums_by_query(grad_scores, k_heads, windows).to(q_type),
            _sums_by_key(grad_scores, q_heads, windows, ctx.num_keys).to(k_type),
            _frames(grad_p, 0, windows.num_frames, windows).to(p_type),
            grad_pos.permute(2, 0, 1).to(pos_type),
            None,
            None,
            None,
        )


class _ApplyFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, v: Tensor, windows: Windows) -> Tensor:
        v_heads = _key_heads(v, weights.size(2), windows, weights.dtype)
        ctx.save_for_backward(weights, v_heads)
        ctx.windows, ctx.v_type = windows, v.dtype
        ctx.num_keys = windows.num_frames if windows.packing else v.size(0)
        return _sums_by_query(weights, v_heads, windows).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weights, v_heads = ctx.saved_tensors
        windows: Windows = ctx.windows
        grad = _query_heads(grad_outputs[0], weights.size(2), windows, weights.dtype)
        grad_v = _sums_by_key(weights, grad, windows, ctx.num_keys).to(ctx.v_type)
        return _scores(grad, v_heads, windows), grad_v, None


def _product_dtype(q: Tensor) -> torch.dtype:
    is_half = q.dtype == torch.bfloat16 and bf16_is_faster()
    return torch.bfloat16 if is_half else torch.float32


# Matrix products have `out=` arguments: autocast leaves those alone.


def _scores(q_heads: Tensor, k_heads: Tensor, windows: Windows) -> Tensor:
    """Products of queries (N, H, B * S, D) with the keys of their windows: (B, N, H, S, W)."""
    batch_size, num_heads = q_heads.shape[:2]
    block, width = windows.block, windows.left + windows.block
    scores = q_heads.new_empty(windows.num_blocks, batch_size, num_heads, block, width)
    queries, keys = q_heads.flatten(end_dim=1), k_heads.flatten(end_dim=1)
    for b, out in enumerate(scores.flatten(start_dim=1, end_dim=2)):
        begin = b * block
        window = keys[:, begin : begin + width].transpose(1, 2)
        torch.bmm(queries[:, begin : begin + block], window, out=out)
    return scores


def _sums_by_query(weights: Tensor, v_heads: Tensor, windows: Windows) -> Tensor:
    """Sums of values (N, H, L + B * S, D) over each query's window: (T, N, H * D)."""
    num_blocks, batch_size, num_heads, block, width = weights.shape
    dim = v_heads.size(3)
    sums = v_heads.new_empty(num_blocks, batch_size, num_heads, block, dim)
    flat, values = weights.flatten(start_dim=1, end_dim=2), v_heads.flatten(end_dim=1)
    for b, out in enumerate(sums.flatten(start_dim=1, end_dim=2)):
        torch.bmm(flat[b], values[:, b * block : b * block + width], out=out)
    if windows.packing is None:
        sums = sums.permute(0, 3, 1, 2, 4)  # (B, S, N, H, D)
        return sums.reshape(num_blocks * block, batch_size, -1)[: windows.num_frames]
    heads = sums.permute(1, 2, 0, 3, 4).flatten(2, 3)  # (N, H, B * S, D)
    return _frames(heads, 0, windows.num_frames, windows)


def _sums_by_key(weights: Tensor, q_heads: Tensor, windows: Windows, num_keys: int) -> Tensor:
    """Sums of queries (N, H, B * S, D) over those whose window has a key: (num_keys, N, H * D)."""
    num_blocks, batch_size, num_heads, block, width = weights.shape
    num_frames, dim = windows.left + num_blocks * block, q_heads.size(3)
    flat, queries = weights.flatten(start_dim=1, end_dim=2), q_heads.flatten(end_dim=1)
    # Windows overlap: their sums are added up in float32.
    sums = q_heads.new_zeros(batch_size * num_heads, num_frames, dim, dtype=torch.float32)
    part = q_heads.new_empty(batch_size * num_heads, width, dim)
    for b in range(num_blocks):
        begin = b * block
        torch.bmm(flat[b].transpose(1, 2), queries[:, begin : begin + block], out=part)
        sums[:, begin : begin + width] += part
    begin = windows.left + windows.num_frames - num_keys
    return _frames(sums.unflatten(0, (batch_size, num_heads)), begin, num_keys, windows)


def _frames(heads: Tensor, begin: int, num_frames: int, windows: Windows) -> Tensor:
    """Frames from `begin` on of (N, H, frames, D): (num_frames, N, H * D), or (M, 1, H * D)."""
    if windows.packing is None:
        return heads[:, :, begin : begin + num_frames].permute(2, 0, 1, 3).flatten(start_dim=2)
    num_heads, dim = heads.size(1), heads.size(3)
    x = heads.new_empty(windows.packing.offsets[-1], 1, num_heads * dim)
    for part, own in zip(x.split(windows.packing.sizes), heads, strict=True):
        frames = own[:, begin : begin + part.size(0)].transpose(0, 1)
        part.view(-1, num_heads, dim).copy_(frames)
    return x


def _query_heads(x: Tensor, num_heads: int, windows: Windows, dtype: torch.dtype) -> Tensor:
    """(T, N, H * D) to (N, H, B * S, D), zeros behind the frames."""
    return _heads(x, num_heads, 0, windows.num_blocks * windows.block, windows, dtype)


def _key_heads(x: Tensor, num_heads: int, windows: Windows, dtype: torch.dtype) -> Tensor:
    """(T or L + T, N, H * D) to (N, H, L + B * S, D), zeros round the frames."""
    num_frames = windows.left + windows.num_blocks * windows.block
    begin = windows.left
    if windows.packing is None:
        begin += windows.num_frames - x.size(0)
    return _heads(x, num_heads, begin, num_frames, windows, dtype)


def _heads(
    x: Tensor, num_heads: int, begin: int, num_frames: int, windows: Windows, dtype: torch.dtype
) -> Tensor:
    if windows.packing is not None:
        sizes = windows.packing.sizes
        heads = x.new_zeros(len(sizes), num_heads, num_frames, x.size(2) // num_heads, dtype=dtype)
        for part, own in zip(x.split(sizes), heads, strict=True):
            frames = part.reshape(-1, num_heads, own.size(2)).transpose(0, 1)
            own[:, begin : begin + frames.size(1)] = frames
        return heads
    end = begin + x.size(0)
    x = x.unflatten(2, (num_heads, -1)).permute(1, 2, 0, 3)  # (N, H, frames, D)
    heads = x.new_empty(*x.shape[:2], num_frames, x.size(3), dtype=dtype)
    heads[:, :, :begin] = 0.0
    heads[:, :, begin:end] = x
    heads[:, :, end:] = 0.0
    return heads
