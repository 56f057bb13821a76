"""What do the lattice recursions compute, written so that it can be read and run on any device?

Every arc of both lattice types leads from step k to step k + 1 when the steps are
- regular: anti-diagonals, k = s + t (a symbol raises s, a blank raises t);
- others: frames, k = t (symbol and blank both raise t).
On tables indexed by (step, row) one loop over k therefore serves all types, in the log domain:

    p[k+1, s] = logaddexp(p[k, s] + blank[k, s], p[k, s-1] + symbol[k, s-1])

Invariant: the same mathematics as `numba_cpu`, by other means; each serves as the other's test.

Source: k2, k2/python/csrc/torch/mutual_information_cpu.cu (the meaning, not the method).
"""

from typing import Final

import torch
from torch import Tensor

__all__ = ["reference_forward_backward"]

_MINUS_INFINITY: Final = float("-inf")


def reference_forward_backward(
    px: Tensor, py: Tensor, boundary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`lattice_forward_backward` in plain PyTorch; arguments and results are the same."""
    num_symbols, num_frames = px.size(1), py.size(2)
    is_regular = px.size(2) == num_frames + 1
    s_begin, t_begin, s_end, t_end = (
        column[:, None, None] for column in boundary.to(px.device).unbind(dim=1)
    )
    num_steps = num_frames + (num_symbols if is_regular else 0)

    # Node (row i, step k) of an utterance is the lattice's node (s, t), counted from its begin.
    utterance = torch.arange(px.size(0), device=px.device)[:, None, None]
    row = torch.arange(num_symbols + 1, device=px.device)[None, :, None]
    step = torch.arange(num_steps, device=px.device)[None, None, :]
    s = s_begin + row
    t = t_begin + step - (row if is_regular else torch.zeros_like(row))  # (N, S+1, K)

    has_blank = (s <= s_end) & (t >= t_begin) & (t < t_end)
    has_symbol = (s < s_end) & (t >= t_begin) & (t < t_end + int(is_regular))
    has_symbol = has_symbol[:, :num_symbols]
    blank_arcs = (utterance, s.clamp(max=num_symbols), t.clamp(0, num_frames - 1))
    symbol_arcs = (
        utterance,
        s[:, :num_symbols].clamp(max=num_symbols - 1),
        t[:, :num_symbols].clamp(0, px.size(2) - 1),
    )
    # float64 whatever the input: hundreds of additions in float32 lose the third decimal.
    blank = py.double()[blank_arcs].masked_fill(~has_blank, _MINUS_INFINITY).permute(2, 0, 1)
    symbol = px.double()[symbol_arcs].masked_fill(~has_symbol, _MINUS_INFINITY).permute(2, 0, 1)

    p = _forward(symbol, blank)  # (K+1, N, S+1)
    last_row = (s_end - s_begin)[:, 0, 0]
    last_step = (t_end - t_begin)[:, 0, 0] + (last_row if is_regular else 0)
    scores = p[last_step, utterance[:, 0, 0], last_row]
    is_last = (row[:, :, 0] == last_row[:, None]) & scores.isfinite()[:, None]  # (N, S+1)
    symbol_share, blank_share = _backward(symbol, blank, p, last_step, is_last)

    finite = scores.isfinite()[:, None, None]
    has_symbol, has_blank = has_symbol & finite, has_blank & finite
    return (
        scores.to(px.dtype),
        _scatter(px, symbol_arcs, has_symbol, symbol_share.permute(1, 2, 0)),
        _scatter(py, blank_arcs, has_blank, blank_share.permute(1, 2, 0)),
    )


def _forward(symbol: Tensor, blank: Tensor) -> Tensor:
    """Log-probability of reaching every node: (K, N, S), (K, N, S+1) -> (K+1, N, S+1)."""
    node = blank.new_full(blank.shape[1:], _MINUS_INFINITY)  # (N, S+1)
    node[:, 0] = 0.0
    nodes = [node]
    for symbol_k, blank_k in zip(symbol, blank, strict=True):
        entered = torch.full_like(node, _MINUS_INFINITY)
        entered[:, 1:] = node[:, :-1] + symbol_k
        node = torch.logaddexp(node + blank_k, entered)
        nodes.append(node)
    return torch.stack(nodes)


def _backward(
    symbol: Tensor, blank: Tensor, p: Tensor, last_step: Tensor, is_last: Tensor
) -> tuple[Tensor, Tensor]:
    """Occupation of every arc, by handing the mass of each node back to its two predecessors.

    A node's mass is split by the predecessors' shares of its probability, r and 1 - r; no
    absolute backward score is ever formed, so no precision is lost to large numbers.
    """
    symbol_share, blank_share = torch.zeros_like(symbol), torch.zeros_like(blank)
    mass = torch.zeros_like(p[0])
    for k in range(symbol.size(0) - 1, -1, -1):
        mass = mass + (is_last & (last_step == k + 1)[:, None])
        by_blank = p[k] + blank[k]
        by_symbol = p[k, :, :-1] + symbol[k]
        r = torch.exp(by_symbol - p[k + 1, :, 1:]).clamp(max=1.0)
        r = r.masked_fill(by_symbol == _MINUS_INFINITY, 0.0)
        # Exactly 1: what rounding left over would flow into nodes that nothing reaches.
        r = r.masked_fill(by_blank[:, 1:] == _MINUS_INFINITY, 1.0)
        symbol_share[k] = mass[:, 1:] * r
        blank_share[k] = mass
        blank_share[k, :, 1:] *= 1.0 - r
        mass = blank_share[k].clone()
        mass[:, :-1] += symbol_share[k]
    return symbol_share, blank_share


def _scatter(
    like: Tensor, arcs: tuple[Tensor, Tensor, Tensor], exists: Tensor, share: Tensor
) -> Tensor:
    """Put the shares (N, rows, K) of existing arcs back to their places in a (N, S, T) table."""
    out = torch.zeros_like(like)
    out[tuple(index.expand(exists.shape)[exists] for index in arcs)] = share[exists].to(out.dtype)
    return out
