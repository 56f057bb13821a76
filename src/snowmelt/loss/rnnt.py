"""What is the transducer loss of a batch? Simple, smoothed, full and pruned, as functions.

The names, argument names, defaults and results are k2's, so that training code can be kept.
Training uses two of them: `rnnt_loss_smoothed` on the sum of two projections finds which symbols
matter on each frame, `get_rnnt_prune_ranges` turns that into a band, and `rnnt_loss_pruned` sums
the alignments of the full joiner inside it. `rnnt_loss_pruned_joiner` is ours: the same with the
joiner's last layers inside, which saves most of the time and memory.

Invariant: losses are in nats and never divided by lengths; nothing is written into arguments; an
utterance with no possible path has loss +inf and a gradient of exactly zero.

Source: k2, k2/python/k2/rnnt_loss.py; arXiv 2206.13236.
"""

from typing import Literal, overload

import torch
from torch import Tensor

from snowmelt.loss.checks import RnntType, check_joint, check_simple
from snowmelt.loss.closed_form import LatticeOptions, band_scores, simple_scores
from snowmelt.loss.logprobs import (
    add_delay_penalty,
    get_hat_logprobs_pruned,
    get_rnnt_logprobs,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
    get_rnnt_logprobs_smoothed,
)
from snowmelt.loss.pruned_joiner import rnnt_loss_pruned_joiner
from snowmelt.loss.pruning import (
    adjust_pruning_lower_bound,
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
)
from snowmelt.loss.recursion import (
    joint_mutual_information_recursion,
    mutual_information_recursion,
)
from snowmelt.loss.reduction import Reduction, reduced

__all__ = [
    "adjust_pruning_lower_bound",
    "do_rnnt_pruning",
    "get_hat_logprobs_pruned",
    "get_rnnt_logprobs",
    "get_rnnt_logprobs_joint",
    "get_rnnt_logprobs_pruned",
    "get_rnnt_logprobs_smoothed",
    "get_rnnt_prune_ranges",
    "joint_mutual_information_recursion",
    "mutual_information_recursion",
    "rnnt_loss",
    "rnnt_loss_pruned",
    "rnnt_loss_pruned_joiner",
    "rnnt_loss_simple",
    "rnnt_loss_smoothed",
]

_LossWithGrad = tuple[Tensor, tuple[Tensor, Tensor]]


@overload
def rnnt_loss_simple(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: Literal[False] = False,
) -> Tensor: ...
@overload
def rnnt_loss_simple(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    *,
    return_grad: Literal[True],
) -> _LossWithGrad: ...
def rnnt_loss_simple(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: bool = False,
) -> Tensor | _LossWithGrad:
    """Loss of the simple joiner, whose logits are am[t] + lm[s].

    Args:
        lm: (N, S+1, V) unnormalised decoder scores, float32 or float64; row s follows s symbols.
        am: (N, T, V) unnormalised encoder scores, same type.
        symbols: (N, S) int64 without blank, padded with any valid id.
        termination_symbol: id of blank.
        boundary: (N, 4) int64 rows [s_begin, t_begin, s_end, t_end]; None: [0, 0, S, T].
        rnnt_type: where a symbol leads: regular (s+1, t), modified (s+1, t+1), constrained
            (s+1, t+1) and paying the blank of the new row too.
        delay_penalty: if positive, reward per frame for emitting before the utterance's middle.
        reduction: none: (N,); mean: over utterances; sum.
        return_grad: also return the occupation probabilities of the arcs.

    Returns:
        The loss in nats; with `return_grad` the tuple (loss, (px_grad, py_grad)), where px_grad
        (N, S, T+1) if regular else (N, S, T) and py_grad (N, S+1, T) are the derivatives of the
        summed LOG-PROBABILITY (so positive), whatever the reduction, and detached.

    Raises:
        UserError: arguments do not fit together, or an unknown type or reduction.
        AssertionError: not regular, and an utterance has more symbols than frames.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    check_simple(lm, am, symbols, termination_symbol, rnnt_type, boundary)
    options = LatticeOptions(termination_symbol, rnnt_type, boundary, delay_penalty)
    scores, px_grad, py_grad = simple_scores(lm, am, symbols, 0.0, options)
    loss = reduced(scores, reduction)
    return (loss, (px_grad, py_grad)) if return_grad else loss


@overload
def rnnt_loss_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: Literal[False] = False,
) -> Tensor: ...
@overload
def rnnt_loss_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    *,
    return_grad: Literal[True],
) -> _LossWithGrad: ...
def rnnt_loss_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: bool = False,
) -> Tensor | _LossWithGrad:
    """Loss of the simple joiner, its log-probabilities mixed with those of each side alone.

    Without the mixing, one of the two projections may learn to do the other's work. Arguments
    not listed, results and errors are those of `rnnt_loss_simple`.

    Args:
        lm_only_scale: weight of the decoder alone (recipes: 0.25).
        am_only_scale: weight of the encoder alone (recipes: 0). If it is not 0, the average over
            the whole batch that it needs makes an utterance's loss depend on its batch.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    check_simple(lm, am, symbols, termination_symbol, rnnt_type, boundary)
    if am_only_scale == 0.0 and lm_only_scale != 1.0:
        options = LatticeOptions(termination_symbol, rnnt_type, boundary, delay_penalty)
        scores, px_grad, py_grad = simple_scores(lm, am, symbols, lm_only_scale, options)
    else:
        # The encoder alone needs a gradient through the batch's average decoder: no recipe uses
        # it, so it takes the ordinary way.
        px, py = get_rnnt_logprobs_smoothed(
            lm, am, symbols, termination_symbol, lm_only_scale, am_only_scale, boundary, rnnt_type
        )
        px = add_delay_penalty(px, py.size(2), boundary, delay_penalty)
        scores, (px_grad, py_grad) = mutual_information_recursion(
            px, py, boundary, return_grad=True
        )
    loss = reduced(scores, reduction)
    return (loss, (px_grad, py_grad)) if return_grad else loss


def rnnt_loss(
    logits: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Loss of a joiner that was computed for all nodes.

    Args:
        logits: (N, T, S+1, V), unnormalised, float32 or float64.

    Other arguments, the result and errors are those of `rnnt_loss_simple`.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    check_joint(logits, symbols, termination_symbol, rnnt_type, boundary)
    every_row = torch.arange(logits.size(2), device=logits.device).expand(logits.shape[:3])
    options = LatticeOptions(termination_symbol, rnnt_type, boundary, delay_penalty)
    return reduced(band_scores(logits, symbols, every_row, options), reduction)


def rnnt_loss_pruned(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
    delay_penalty: float = 0.0,
    reduction: Reduction = "mean",
    use_hat_loss: bool = False,
) -> Tensor:
    """Loss of a joiner that was computed inside a band; paths that leave the band do not count.

    Args:
        logits: (N, T, R, V), unnormalised, float32 or float64.
        ranges: (N, T, R) int64 from `get_rnnt_prune_ranges`.
        use_hat_loss: blank as its own yes-or-no decision (`get_hat_logprobs_pruned`).

    Other arguments, the result and errors are those of `rnnt_loss_simple`.

    Source: k2, k2/python/k2/rnnt_loss.py.
    """
    check_joint(logits, symbols, termination_symbol, rnnt_type, boundary, ranges)
    if use_hat_loss:
        px, py = get_hat_logprobs_pruned(
            logits, symbols, ranges, termination_symbol, boundary, rnnt_type
        )
        px = add_delay_penalty(px, py.size(2), boundary, delay_penalty)
        return reduced(mutual_information_recursion(px, py, boundary), reduction)
    options = LatticeOptions(termination_symbol, rnnt_type, boundary, delay_penalty)
    return reduced(band_scores(logits, symbols, ranges, options), reduction)
