"""Which log-probability does each arc of the lattice have? From scores to px and py.

Everything here is ordinary differentiable PyTorch; `closed_form` reuses the last steps and
replaces only the gradient.

Invariant: arcs a path must not take are -inf: the symbol arcs of the regular type in the column
after the last frame, and everything outside a pruned band.

Source: k2, k2/python/k2/rnnt_loss.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss.checks import RnntType, check_joint, check_simple
from snowmelt.loss.pairwise import pairwise_log_sum_exp

__all__ = [
    "add_delay_penalty",
    "band_arcs",
    "band_symbols",
    "combined_arcs",
    "finish_arcs",
    "get_hat_logprobs_pruned",
    "get_rnnt_logprobs",
    "get_rnnt_logprobs_joint",
    "get_rnnt_logprobs_pruned",
    "get_rnnt_logprobs_smoothed",
]

Arcs = tuple[Tensor, Tensor]


def get_rnnt_logprobs(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    rnnt_type: RnntType = "regular",
    boundary: Tensor | None = None,
) -> Arcs:
    """Arcs of the simple joiner, whose logits are am[t] + lm[s].

    Args:
        lm: (N, S+1, V) unnormalised decoder scores; row s follows s symbols.
        am: (N, T, V) unnormalised encoder scores.
        symbols: (N, S) int64 without blank, padded with any valid id.
        termination_symbol: id of blank.
        rnnt_type: where a symbol arc leads: regular (s+1, t), modified (s+1, t+1), constrained
            (s+1, t+1) after the blank of the new row.
        boundary: (N, 4) int64 rows [s_begin, t_begin, s_end, t_end]; None: [0, 0, S, T].

    Returns:
        px (N, S, T+1) if regular, else (N, S, T); py (N, S+1, T): natural logs.

    Raises:
        UserError: arguments do not fit together.
        AssertionError: not regular, and an utterance has more symbols than frames.
    """
    check_simple(lm, am, symbols, termination_symbol, rnnt_type, boundary)
    px, py = _combined_arcs(lm, am, symbols, termination_symbol)
    return finish_arcs(px, py, rnnt_type, boundary)


def get_rnnt_logprobs_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: RnntType = "regular",
) -> Arcs:
    """Arcs of the simple joiner, mixed (as logs) with those of decoder and encoder alone.

    Other arguments, results and errors are those of `get_rnnt_logprobs`.

    Args:
        lm_only_scale: weight of log_softmax(lm).
        am_only_scale: weight of the encoder's scores with an average decoder: the mean of
            softmax(lm) over ALL rows of the batch, padding included. So with a weight other than
            0 an utterance's loss depends on its batch.
    """
    check_simple(lm, am, symbols, termination_symbol, rnnt_type, boundary)
    combined_scale = 1.0 - lm_only_scale - am_only_scale
    parts: list[tuple[float, Arcs]] = []
    # A part without weight is left out: 0 * -inf would be nan.
    if combined_scale != 0.0:
        parts.append((combined_scale, _combined_arcs(lm, am, symbols, termination_symbol)))
    if lm_only_scale != 0.0:
        parts.append((lm_only_scale, _lm_only_arcs(lm, symbols, termination_symbol)))
    if am_only_scale != 0.0:
        parts.append((am_only_scale, _am_only_arcs(lm, am, symbols, termination_symbol)))
    shape = (lm.size(0), lm.size(1), am.size(1))
    px = sum((scale * arcs[0] for scale, arcs in parts), lm.new_zeros(()))
    py = sum((scale * arcs[1] for scale, arcs in parts), lm.new_zeros(()))
    px = px.expand(shape[0], shape[1] - 1, shape[2])
    return finish_arcs(px, py.expand(shape), rnnt_type, boundary)


def get_rnnt_logprobs_joint(
    logits: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    rnnt_type: RnntType = "regular",
    boundary: Tensor | None = None,
) -> Arcs:
    """Arcs of a full joiner.

    Args:
        logits: (N, T, S+1, V), unnormalised.

    Other arguments, results and errors are those of `get_rnnt_logprobs`.
    """
    check_joint(logits, symbols, termination_symbol, rnnt_type, boundary)
    log_probs = logits.log_softmax(dim=3)
    num_frames, num_symbols = logits.size(1), symbols.size(1)
    index = symbols[:, None, :, None].expand(-1, num_frames, -1, -1)  # (N, T, S, 1)
    px = log_probs[:, :, :num_symbols].gather(3, index).squeeze(3).transpose(1, 2)
    py = log_probs[..., termination_symbol].transpose(1, 2)
    return finish_arcs(px, py, rnnt_type, boundary)


def get_rnnt_logprobs_pruned(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None,
    rnnt_type: RnntType = "regular",
) -> Arcs:
    """Arcs of a joiner that was computed only inside a band; all others are -inf.

    Args:
        logits: (N, T, R, V), unnormalised.
        ranges: (N, T, R) int64, the rows of each frame, from `get_rnnt_prune_ranges`.

    Other arguments, results and errors are those of `get_rnnt_logprobs`.
    """
    check_joint(logits, symbols, termination_symbol, rnnt_type, boundary, ranges)
    log_probs = logits.log_softmax(dim=3)
    index = band_symbols(symbols, ranges, termination_symbol)[..., None]
    px, py = band_arcs(
        log_probs.gather(3, index).squeeze(3),
        log_probs[..., termination_symbol],
        ranges,
        symbols.size(1),
    )
    return finish_arcs(px, py, rnnt_type, boundary)


def get_hat_logprobs_pruned(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None,
    rnnt_type: RnntType = "regular",
) -> Arcs:
    """Pruned arcs with blank as its own yes-or-no decision (hybrid autoregressive transducer).

    Arguments, results and errors are those of `get_rnnt_logprobs_pruned`; blank must be 0.

    Source: k2, k2/python/k2/rnnt_loss.py; arXiv 2003.07705.
    """
    check_joint(logits, symbols, termination_symbol, rnnt_type, boundary, ranges)
    if termination_symbol != 0:
        raise UserError(f"the HAT loss needs blank = 0, got {termination_symbol}")
    blank_logits = logits[..., 0]
    index = band_symbols(symbols, ranges, termination_symbol)[..., None]
    symbol_log_probs = logits.gather(3, index).squeeze(3) - logits[..., 1:].logsumexp(dim=3)
    px, py = band_arcs(
        symbol_log_probs + F.logsigmoid(-blank_logits),
        F.logsigmoid(blank_logits),
        ranges,
        symbols.size(1),
    )
    return finish_arcs(px, py, rnnt_type, boundary)


def band_symbols(symbols: Tensor, ranges: Tensor, termination_symbol: int) -> Tensor:
    """The symbol that each kept node would emit, (N, T, R); blank stands in at the last row."""
    padded = F.pad(symbols, (0, 1), value=termination_symbol)  # (N, S+1)
    return padded.gather(1, ranges.flatten(1)).view(ranges.shape)


def band_arcs(
    symbol_log_probs: Tensor, blank_log_probs: Tensor, ranges: Tensor, num_symbols: int
) -> Arcs:
    """Spread log-probabilities (N, T, R) over the lattice: px (N, S, T), py (N, S+1, T)."""
    num_utterances, num_frames, _ = ranges.shape
    outside = symbol_log_probs.new_full(
        (num_utterances, num_symbols + 1, num_frames), float("-inf")
    )
    rows = ranges.transpose(1, 2)
    px = outside.scatter(1, rows, symbol_log_probs.transpose(1, 2))[:, :num_symbols]
    return px, outside.scatter(1, rows, blank_log_probs.transpose(1, 2))


def finish_arcs(px: Tensor, py: Tensor, rnnt_type: RnntType, boundary: Tensor | None) -> Arcs:
    """Make arcs of the wanted type out of px (N, S, T) and py (N, S+1, T)."""
    if rnnt_type == "modified":
        return px, py
    if rnnt_type == "constrained":
        return px + py[:, 1:], py
    px = F.pad(px, (0, 1), value=float("-inf"))  # (N, S, T+1)
    if boundary is not None:
        # After its last frame an utterance emits nothing.
        column = torch.arange(px.size(2), device=px.device)
        is_end = column == boundary[:, 3:]  # (N, T+1)
        px = px.masked_fill(is_end[:, None, :], float("-inf"))
    return px, py


def add_delay_penalty(
    px: Tensor, num_frames: int, boundary: Tensor | None, delay_penalty: float
) -> Tensor:
    """Reward symbols before the middle of an utterance and punish those behind it.

    Adds delay_penalty * ((T_n - 1) / 2 - t) to px (N, S, .); nothing unless it is positive.

    Source: arXiv 2211.00490.
    """
    if not delay_penalty > 0.0:
        return px
    frame = torch.arange(px.size(2), device=px.device, dtype=px.dtype)
    if boundary is None:
        return px + delay_penalty * ((num_frames - 1) / 2 - frame)
    middle = (boundary[:, 3, None, None].to(px.dtype) - 1.0) / 2.0
    return px + delay_penalty * (middle - frame)


def combined_arcs(
    lm: Tensor, am: Tensor, log_sums: Tensor, symbols: Tensor, termination_symbol: int
) -> Arcs:
    """px (N, S, T), py (N, S+1, T) of the simple joiner, given its normalisers (N, S+1, T)."""
    num_symbols = symbols.size(1)
    am_symbols = am.gather(2, symbols[:, None, :].expand(-1, am.size(1), -1)).transpose(1, 2)
    lm_symbols = lm[:, :num_symbols].gather(2, symbols[:, :, None])  # (N, S, 1)
    px = am_symbols + lm_symbols - log_sums[:, :num_symbols]
    py = am[:, None, :, termination_symbol] + lm[:, :, termination_symbol, None] - log_sums
    return px, py


def _combined_arcs(lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int) -> Arcs:
    """px (N, S, T), py (N, S+1, T) of the simple joiner."""
    return combined_arcs(lm, am, pairwise_log_sum_exp(lm, am), symbols, termination_symbol)


def _lm_only_arcs(lm: Tensor, symbols: Tensor, termination_symbol: int) -> Arcs:
    """px (N, S, 1), py (N, S+1, 1) of the decoder alone."""
    log_probs = lm.log_softmax(dim=2)
    px = log_probs[:, : symbols.size(1)].gather(2, symbols[:, :, None])
    return px, log_probs[:, :, termination_symbol, None]


def _am_only_arcs(lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int) -> Arcs:
    """px (N, S, T), py (N, 1, T) of the encoder with the batch's average decoder."""
    unigram = lm.softmax(dim=2).mean(dim=(0, 1)) + torch.finfo(lm.dtype).tiny  # (V,)
    log_probs = (am + unigram.log()).log_softmax(dim=2)  # (N, T, V)
    px = log_probs.gather(2, symbols[:, None, :].expand(-1, am.size(1), -1)).transpose(1, 2)
    return px, log_probs[:, None, :, termination_symbol]
