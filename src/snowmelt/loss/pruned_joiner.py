"""What is the pruned loss of a joiner whose logits never exist all at once?

    logits[n, t, r] = weight @ tanh(am[n, t] + lm[n, ranges[n, t, r]]) + bias

Gather, joiner, output layer, softmax and their gradients are one operation on blocks of rows that
stay in the processor's cache:

- pass 1 keeps two numbers of each row, the log-probabilities of its symbol and of blank;
- the recursion turns them into scores and occupations;
- pass 2 (backward) computes each block again and forms the gradient in closed form, see
  `closed_form`. A trained model's occupation lies on few rows; the others may be left out.

Invariant: nothing of size (rows, V) or (rows, J) outlives its block; rows outside the boundary are
never computed, so what the padding holds does not matter; utterances whose score is not finite
get a gradient of exactly zero.

Source: arXiv 2206.13236 (the loss); the closed form is that of the softmax.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from snowmelt.loss.checks import RnntType, check_joiner
from snowmelt.loss.closed_form import LatticeOptions, band_inside, band_occupations
from snowmelt.loss.logprobs import band_arcs
from snowmelt.loss.reduction import Reduction, reduced

__all__ = ["rnnt_loss_pruned_joiner"]

# Logits of a block, 4 MiB of float32: smaller blocks leave the matrix products too little to do,
# larger ones fall out of the cache between one operation and the next.
_BLOCK_LOGITS: Final = 2**20
# With a huge vocabulary the products need some rows all the same.
_LEAST_BLOCK_ROWS: Final = 128


def rnnt_loss_pruned_joiner(
    am: Tensor,
    lm: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    *,
    negligible: float = 0.0,
    product_dtype: torch.dtype | None = None,
) -> Tensor:
    """`rnnt_loss_pruned` of tanh joiner and output layer, in little time and memory.

    Args:
        am: (N, T, J) projected encoder vectors, float32 or float64.
        lm: (N, S+1, J) projected decoder vectors, same type; row s follows s symbols.
        weight: (V, J) of the output layer, same type.
        bias: (V,) or None.
        symbols: (N, S) int64 without blank, padded with any valid id.
        ranges: (N, T, R) int64 from `get_rnnt_prune_ranges`.
        negligible: rows through which paths lead with at most this probability are left out of
            the gradient; 0 leaves out nothing that counts: the gradient is exact. The loss is
            exact in any case. Per unit of the loss's weight the gradient of a left-out row's
            logits, which becomes 0, has entries of at most `negligible` and an absolute sum of at
            most twice that. So the error of an entry of the gradient is at most
            - for `weight` and `bias`: the summed occupation of the rows left out, which is at most
              `negligible` times their number;
            - for `am`: 2 R * negligible * max|weight|; for `lm`: the same with the number of
              frames in whose band the row lies instead of R.
        product_dtype: type in which the matrix products read their factors (bfloat16 or float16;
            they add up in float32); all else stays in the type of `am`. None: that type.

    The other arguments and the result are those of `rnnt_loss_pruned`.

    Raises:
        UserError: arguments do not fit together, or an unknown type or reduction.
        AssertionError: not regular, and an utterance has more symbols than frames.

    Source: k2, k2/python/k2/rnnt_loss.py (`do_rnnt_pruning`, `rnnt_loss_pruned`); icefall,
    egs/librispeech/ASR/pruned_transducer_stateless7/joiner.py.
    """
    check_joiner(am, lm, weight, bias, symbols, ranges, termination_symbol, rnnt_type, boundary)
    options = LatticeOptions(termination_symbol, rnnt_type, boundary, delay_penalty)
    scores: Tensor = _PrunedJoiner.apply(  # type: ignore[no-untyped-call]
        am, lm, weight, bias, symbols, ranges, options, negligible, product_dtype or am.dtype
    )
    return reduced(scores, reduction)


class _Rows(NamedTuple):
    """Rows of the band, packed: all (M,) int64."""

    node: Tensor  # place in (N, T, R)
    am_row: Tensor  # place in (N, T)
    lm_row: Tensor  # place in (N, S+1)
    target: Tensor  # the symbol emitted

    def blocks(self, vocab_size: int) -> Iterator["_Rows"]:
        """The same rows in pieces of the size at which the products are fast."""
        length = max(_LEAST_BLOCK_ROWS, _BLOCK_LOGITS // vocab_size)
        for start in range(0, self.node.size(0), length):
            yield _Rows(*(index[start : start + length] for index in self))


class _Layer(NamedTuple):
    """Joiner and output layer."""

    am: Tensor  # (N * T, J)
    lm: Tensor  # (N * (S+1), J)
    weight: Tensor  # (V, J), in the type of the products
    bias: Tensor | None  # (V,)

    def hidden(self, rows: _Rows) -> Tensor:
        """(M, J)."""
        return self.am.index_select(0, rows.am_row).add_(self.lm[rows.lm_row]).tanh_()

    def logits(self, hidden: Tensor) -> Tensor:
        """(M, J) in the type of the products -> (M, V) in that of `am`."""
        if self.bias is not None and hidden.dtype == self.bias.dtype:
            return torch.addmm(self.bias, hidden, self.weight.T)
        logits = (hidden @ self.weight.T).to(self.am.dtype)
        return logits if self.bias is None else logits.add_(self.bias)


class _PrunedJoiner(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        am: Tensor,
        lm: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        symbols: Tensor,
        ranges: Tensor,
        options: LatticeOptions,
        negligible: float,
        product_dtype: torch.dtype,
    ) -> Tensor:
        blank = options.termination_symbol
        is_inside = band_inside(ranges, options.boundary).flatten()
        rows = _rows(symbols, ranges, is_inside.nonzero()[:, 0], lm.size(1), blank)
        layer = _layer(am, lm, weight, bias, product_dtype)
        # Outside the boundary no arc exists.
        by_symbol = am.new_full((is_inside.numel(),), -torch.inf)
        by_blank = am.new_full((is_inside.numel(),), -torch.inf)
        # Mixed precision is decided by `product_dtype` alone.
        with torch.autocast(device_type=am.device.type, enabled=False):
            for block in rows.blocks(weight.size(0)):
                logits = layer.logits(layer.hidden(block).to(product_dtype))
                log_probs = logits.log_softmax(dim=1)
                by_symbol[block.node] = log_probs.gather(1, block.target[:, None])[:, 0]
                by_blank[block.node] = log_probs[:, blank]
        px, py = band_arcs(
            by_symbol.view(ranges.shape), by_blank.view(ranges.shape), ranges, symbols.size(1)
        )
        scores, px_grad, py_grad = options.solve(px, py)
        ctx.save_for_backward(am, lm, weight, bias, symbols, ranges, px_grad, py_grad)
        ctx.settings = (options, negligible, product_dtype)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scores_grad: Tensor) -> tuple[Tensor | None, ...]:
        am, lm, weight, bias, symbols, ranges, px_grad, py_grad = ctx.saved_tensors
        options, negligible, product_dtype = ctx.settings
        blank = options.termination_symbol
        by_symbol, by_blank = band_occupations(options, px_grad, py_grad, ranges)  # (N, T, R)
        is_kept = (by_symbol + by_blank > negligible) & (scores_grad != 0.0)[:, None, None]
        rows = _rows(symbols, ranges, is_kept.flatten().nonzero()[:, 0], lm.size(1), blank)
        by_symbol = (scores_grad[:, None, None] * by_symbol).flatten()
        by_blank = (scores_grad[:, None, None] * by_blank).flatten()

        layer = _layer(am, lm, weight, bias, product_dtype)
        am_grad, lm_grad = torch.zeros_like(layer.am), torch.zeros_like(layer.lm)
        weight_grad, bias_grad = torch.zeros_like(weight), weight.new_zeros(weight.size(0))
        with torch.autocast(device_type=am.device.type, enabled=False):
            for block in rows.blocks(weight.size(0)):
                symbol_share, blank_share = by_symbol[block.node], by_blank[block.node]
                hidden = layer.hidden(block)
                factor = hidden.to(product_dtype)
                logits_grad = layer.logits(factor).softmax(dim=1)
                logits_grad *= -(symbol_share + blank_share)[:, None]
                logits_grad.scatter_add_(1, block.target[:, None], symbol_share[:, None])
                logits_grad[:, blank] += blank_share
                bias_grad += logits_grad.sum(dim=0)
                logits_grad = logits_grad.to(product_dtype)
                weight_grad += logits_grad.T @ factor
                hidden_grad = (logits_grad @ layer.weight).to(am.dtype)
                # The derivative of tanh: 1 - tanh^2, in one pass.
                hidden_grad = torch.ops.aten.tanh_backward(hidden_grad, hidden)
                am_grad.index_add_(0, block.am_row, hidden_grad)
                lm_grad.index_add_(0, block.lm_row, hidden_grad)
        return (
            am_grad.view(am.shape),
            lm_grad.view(lm.shape),
            weight_grad,
            None if bias is None else bias_grad,
            *(None,) * 5,
        )


def _rows(symbols: Tensor, ranges: Tensor, node: Tensor, num_lm_rows: int, blank: int) -> _Rows:
    """The rows at the places `node` (M,) of the band (N, T, R)."""
    _, num_frames, num_kept = ranges.shape
    am_row = torch.div(node, num_kept, rounding_mode="floor")
    lm_row = torch.div(am_row, num_frames, rounding_mode="floor") * num_lm_rows
    lm_row += ranges.flatten()[node]
    padded = F.pad(symbols, (0, 1), value=blank)  # (N, S+1)
    return _Rows(node, am_row, lm_row, padded.flatten()[lm_row])


def _layer(
    am: Tensor, lm: Tensor, weight: Tensor, bias: Tensor | None, product_dtype: torch.dtype
) -> _Layer:
    return _Layer(am.flatten(0, 1), lm.flatten(0, 1), weight.to(product_dtype), bias)
