"""Do the arguments of a loss fit together? Every loss asks here before it computes.

Invariant: checks and completes arguments, never computes with scores and never changes a tensor.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from snowmelt.core.errors import UserError

__all__ = [
    "RnntType",
    "check_boundary",
    "check_joiner",
    "check_joint",
    "check_lattice",
    "check_simple",
    "check_symbols",
    "check_type",
]

RnntType = Literal["regular", "modified", "constrained"]


def check_simple(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    rnnt_type: str,
    boundary: Tensor | None,
) -> None:
    """Raise unless the arguments of the simple and smoothed losses fit together.

    Raises:
        UserError: shapes, types, blank or boundary do not fit.
        AssertionError: as `check_boundary`.
    """
    if lm.ndim != 3 or am.ndim != 3 or lm.size(0) != am.size(0) or lm.size(2) != am.size(2):
        raise UserError(
            f"lm must be (N, S+1, V) and am (N, T, V), got {tuple(lm.shape)} and {tuple(am.shape)}"
        )
    _check_scores(lm, termination_symbol)
    if am.dtype != lm.dtype:
        raise UserError(f"lm and am differ in type: {lm.dtype} and {am.dtype}")
    _check_rest(symbols, lm.size(0), lm.size(1) - 1, am.size(1), rnnt_type, boundary)


def check_joint(
    logits: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    rnnt_type: str,
    boundary: Tensor | None,
    ranges: Tensor | None = None,
) -> None:
    """Raise unless the arguments of the full (no `ranges`) or pruned losses fit together.

    Raises:
        UserError: shapes, types, blank, ranges or boundary do not fit.
        AssertionError: as `check_boundary`.
    """
    if logits.ndim != 4:
        wanted = "(N, T, S+1, V)" if ranges is None else "(N, T, R, V)"
        raise UserError(f"logits must be {wanted}, got {tuple(logits.shape)}")
    _check_scores(logits, termination_symbol)
    if ranges is None:
        num_symbols = logits.size(2) - 1
    else:
        num_symbols = symbols.size(1) if symbols.ndim == 2 else 0
        if ranges.dtype != torch.int64 or ranges.shape != logits.shape[:3]:
            raise UserError(
                f"ranges must be (N, T, R) = {tuple(logits.shape[:3])} int64, "
                f"got {tuple(ranges.shape)} {_name(ranges.dtype)}"
            )
    _check_rest(symbols, logits.size(0), num_symbols, logits.size(1), rnnt_type, boundary)


def check_joiner(
    am: Tensor,
    lm: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    rnnt_type: str,
    boundary: Tensor | None,
) -> None:
    """Raise unless the arguments of the pruned loss with a joiner inside fit together.

    Raises:
        UserError: shapes, types, blank, ranges or boundary do not fit.
        AssertionError: as `check_boundary`.
    """
    if (
        am.ndim != 3
        or lm.ndim != 3
        or weight.ndim != 2
        or am.size(0) != lm.size(0)
        or not am.size(2) == lm.size(2) == weight.size(1)
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise UserError(
            "am must be (N, T, J), lm (N, S+1, J), weight (V, J) and bias (V,) or None, got "
            f"{tuple(am.shape)}, {tuple(lm.shape)}, {tuple(weight.shape)} and "
            f"{None if bias is None else tuple(bias.shape)}"
        )
    _check_scores(weight.T, termination_symbol)
    others = (am, lm) if bias is None else (am, lm, bias)
    if any(tensor.dtype != weight.dtype for tensor in others):
        raise UserError(
            "am, lm, weight and bias must have one type, got "
            + ", ".join(_name(tensor.dtype) for tensor in (am, lm, weight, *others[2:]))
        )
    if ranges.ndim != 3 or ranges.dtype != torch.int64 or ranges.shape[:2] != am.shape[:2]:
        raise UserError(
            f"ranges must be (N, T, R) int64 with N, T = {tuple(am.shape[:2])}, "
            f"got {tuple(ranges.shape)} {_name(ranges.dtype)}"
        )
    _check_rest(symbols, am.size(0), lm.size(1) - 1, am.size(1), rnnt_type, boundary)


def check_type(rnnt_type: str) -> None:
    """Raise UserError unless `rnnt_type` is one of the three lattice types."""
    if rnnt_type not in get_args(RnntType):
        raise UserError(
            f"unknown rnnt_type {rnnt_type!r}", hint="choose regular, modified or constrained"
        )


def check_symbols(symbols: Tensor, *, num_utterances: int, num_symbols: int) -> None:
    """Raise UserError unless `symbols` is (N, S) int64 with the given sizes."""
    wanted = (num_utterances, num_symbols)
    if symbols.dtype != torch.int64 or tuple(symbols.shape) != wanted:
        raise UserError(
            f"symbols must be (N, S) = {wanted} int64, "
            f"got {tuple(symbols.shape)} {_name(symbols.dtype)}",
            hint="scores after s symbols have S + 1 rows, symbols have S columns without blank",
        )


def check_boundary(
    boundary: Tensor | None,
    *,
    num_utterances: int,
    num_symbols: int,
    num_frames: int,
    rnnt_type: str = "regular",
) -> Tensor | None:
    """The checked boundary, (N, 4) int64 rows [s_begin, t_begin, s_end, t_end], or None.

    Raises:
        UserError: wrong shape or type, or an utterance outside the padded lattice.
        AssertionError: in the modified or constrained type an utterance has more symbols than
            frames, so that no path exists; the message names the utterance.
    """
    if boundary is None:
        if rnnt_type != "regular" and num_symbols > num_frames:
            raise AssertionError(
                f"rnnt_type {rnnt_type!r} needs a frame for each symbol: "
                f"{num_symbols} symbols, {num_frames} frames"
            )
        return None
    if boundary.dtype != torch.int64 or tuple(boundary.shape) != (num_utterances, 4):
        raise UserError(
            f"boundary must be ({num_utterances}, 4) int64, "
            f"got {tuple(boundary.shape)} {_name(boundary.dtype)}"
        )
    s_begin, t_begin, s_end, t_end = boundary.unbind(dim=1)
    fits = (
        (s_begin >= 0)
        & (s_begin <= s_end)
        & (s_end <= num_symbols)
        & (t_begin >= 0)
        & (t_begin <= t_end)
        & (t_end <= num_frames)
    )
    if not bool(fits.all()):
        n = int((~fits).nonzero()[0])
        raise UserError(
            f"boundary of utterance {n} is {boundary[n].tolist()}, outside the lattice of "
            f"{num_symbols} symbols and {num_frames} frames",
            hint="rows are [s_begin, t_begin, s_end, t_end]",
        )
    if rnnt_type != "regular":
        too_short = t_end - t_begin < s_end - s_begin
        if bool(too_short.any()):
            n = int(too_short.nonzero()[0])
            raise AssertionError(
                f"rnnt_type {rnnt_type!r} needs a frame for each symbol: utterance {n} has "
                f"{int(s_end[n] - s_begin[n])} symbols, {int(t_end[n] - t_begin[n])} frames"
            )
    return boundary


def check_lattice(px: Tensor, py: Tensor) -> None:
    """Raise UserError unless px (N, S, T or T+1) and py (N, S+1, T) describe one lattice."""
    if px.dtype not in (torch.float32, torch.float64) or py.dtype != px.dtype:
        raise UserError(
            f"px and py must both be float32 or float64, got {_name(px.dtype)} and "
            f"{_name(py.dtype)}",
            hint="half precision loses the alignment: call .float() first",
        )
    if (
        px.ndim != 3
        or py.ndim != 3
        or px.size(0) != py.size(0)
        or py.size(1) != px.size(1) + 1
        or py.size(2) < 1
        or px.size(2) - py.size(2) not in (0, 1)
    ):
        raise UserError(
            f"px must be (N, S, T) or (N, S, T+1) and py (N, S+1, T) with T >= 1, "
            f"got {tuple(px.shape)} and {tuple(py.shape)}"
        )


def _check_scores(scores: Tensor, termination_symbol: int) -> None:
    if scores.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"scores must be float32 or float64, got {scores.dtype}",
            hint="half precision loses the alignment: call .float() first",
        )
    vocab_size = scores.size(-1)
    if not 0 <= termination_symbol < vocab_size:
        raise UserError(f"blank id {termination_symbol} is not in a vocabulary of {vocab_size}")


def _check_rest(
    symbols: Tensor,
    num_utterances: int,
    num_symbols: int,
    num_frames: int,
    rnnt_type: str,
    boundary: Tensor | None,
) -> None:
    check_type(rnnt_type)
    check_symbols(symbols, num_utterances=num_utterances, num_symbols=num_symbols)
    check_boundary(
        boundary,
        num_utterances=num_utterances,
        num_symbols=num_symbols,
        num_frames=num_frames,
        rnnt_type=rnnt_type,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
