"""Arcs of the lattice: worked example, the scores one by one, the three types, HAT, arguments."""

from typing import Any

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss.checks import RnntType
from snowmelt.loss.logprobs import (
    add_delay_penalty,
    get_hat_logprobs_pruned,
    get_rnnt_logprobs,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
    get_rnnt_logprobs_smoothed,
)
from tests.loss.examples import EXAMPLE_B

INF = torch.inf
TYPES: list[RnntType] = ["regular", "modified", "constrained"]


def case(seed: int = 0, vocab_size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """lm (2, 4, V), am (2, 5, V), symbols (2, 3)."""
    generator = torch.Generator().manual_seed(seed)
    lm = torch.randn(2, 4, vocab_size, generator=generator, dtype=torch.float64)
    am = torch.randn(2, 5, vocab_size, generator=generator, dtype=torch.float64)
    return lm, am, torch.randint(1, vocab_size, (2, 3), generator=generator)


@pytest.mark.parametrize(
    ("rnnt_type", "px"),
    [
        (
            "regular",
            [[-0.239545, -0.861995, -1.407606, -INF], [-0.958020, -1.104131, -0.123873, -INF]],
        ),
        ("modified", [[-0.239545, -0.861995, -1.407606], [-0.958020, -1.104131, -0.123873]]),
        ("constrained", [[-1.697565, -1.466125, -4.031479], [-1.820015, -1.343675, -1.531479]]),
    ],
)
def test_worked_example(rnnt_type: RnntType, px: list[list[float]]) -> None:
    py = [
        [-2.239545, -0.861995, -2.407606],
        [-1.458020, -0.604131, -2.623873],
        [-0.861995, -0.239545, -1.407606],
    ]
    ours_px, ours_py = get_rnnt_logprobs(*EXAMPLE_B, rnnt_type)
    # The example is given to six decimals.
    torch.testing.assert_close(ours_px[0], torch.tensor(px).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours_py[0], torch.tensor(py).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_simple_is_joint_of_the_sum(rnnt_type: RnntType) -> None:
    lm, am, symbols = case()
    boundary = torch.tensor([[0, 0, 3, 4], [0, 0, 2, 5]])
    logits = am[:, :, None] + lm[:, None]
    simple = get_rnnt_logprobs(lm, am, symbols, 0, rnnt_type, boundary)
    joint = get_rnnt_logprobs_joint(logits, symbols, 0, rnnt_type, boundary)
    smoothed = get_rnnt_logprobs_smoothed(
        lm, am, symbols, 0, lm_only_scale=0.0, am_only_scale=0.0, boundary=boundary,
        rnnt_type=rnnt_type,
    )  # fmt: skip
    for one, other, third in zip(simple, joint, smoothed, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, third)


def test_symbol_arcs_end_with_the_utterance() -> None:
    lm, am, symbols = case()
    px, _ = get_rnnt_logprobs(
        lm, am, symbols, 0, boundary=torch.tensor([[0, 0, 3, 4], [0, 0, 2, 5]])
    )
    assert px[0, :, 4].eq(-INF).all() and px[:, :, 5].eq(-INF).all()
    assert px[0, :, :4].isfinite().all() and px[1, :, :5].isfinite().all()


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("scales", [(0.25, 0.0), (0.0, 0.3), (0.1, 0.2), (1.0, 0.0), (0.4, 0.6)])
def test_smoothed_by_definition(scales: tuple[float, float], rnnt_type: RnntType) -> None:
    lm, am, symbols = case()
    lm_scale, am_scale = scales
    combined = (am[:, :, None] + lm[:, None]).log_softmax(dim=3)  # (N, T, S+1, V)
    lm_only = lm.log_softmax(dim=2)[:, None]
    unigram = lm.softmax(dim=2).mean(dim=(0, 1))
    am_only = (am + unigram.log()).log_softmax(dim=2)[:, :, None]
    mixed = (1 - lm_scale - am_scale) * combined + lm_scale * lm_only + am_scale * am_only
    index = symbols[:, None, :, None].expand(2, 5, 3, 1)
    px = mixed[:, :, :3].gather(3, index)[..., 0].transpose(1, 2)
    py = mixed[..., 0].transpose(1, 2)
    if rnnt_type == "constrained":
        px = px + py[:, 1:]
    ours_px, ours_py = get_rnnt_logprobs_smoothed(
        lm, am, symbols, 0, lm_scale, am_scale, rnnt_type=rnnt_type
    )
    torch.testing.assert_close(ours_px[:, :, :5], px)
    torch.testing.assert_close(ours_py, py)
    assert ours_px[:, :, 5:].eq(-INF).all()


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_pruned_is_joint_inside_the_band(rnnt_type: RnntType) -> None:
    lm, am, symbols = case()
    first_row = torch.tensor([[0, 0, 1, 2, 2], [0, 1, 1, 2, 2]])
    ranges = first_row[:, :, None] + torch.arange(2)
    logits = am[:, :, None] + lm[:, None]
    banded = logits.gather(2, ranges[..., None].expand(2, 5, 2, 6))
    px, py = get_rnnt_logprobs_pruned(banded, symbols, ranges, 0, None, rnnt_type)
    full_px, full_py = get_rnnt_logprobs_joint(logits, symbols, 0, rnnt_type)
    in_band = (torch.arange(4)[None, :, None, None] == ranges.transpose(1, 2)[:, None]).any(
        dim=2
    )  # (N, S+1, T)
    torch.testing.assert_close(py, full_py.masked_fill(~in_band, -INF))
    # A constrained symbol arc needs the row it leads to as well.
    px_in_band = in_band[:, :3] & (in_band[:, 1:] if rnnt_type == "constrained" else True)
    torch.testing.assert_close(px[:, :, :5], full_px[:, :, :5].masked_fill(~px_in_band, -INF))


def test_hat_splits_off_blank() -> None:
    lm, am, symbols = case()
    logits = am[:, :, None] + lm[:, None]
    ranges = torch.arange(4).expand(2, 5, 4)
    px, py = get_hat_logprobs_pruned(logits, symbols, ranges, 0, None, "modified")
    blank = logits[..., 0].sigmoid()
    labels = logits[..., 1:].softmax(dim=3) * (1 - blank[..., None])
    torch.testing.assert_close(py.exp(), blank.transpose(1, 2))
    index = (symbols - 1)[:, None, :, None].expand(2, 5, 3, 1)
    wanted = labels[:, :, :3].gather(3, index)[..., 0].transpose(1, 2)
    torch.testing.assert_close(px.exp(), wanted)
    with pytest.raises(UserError, match="blank = 0"):
        get_hat_logprobs_pruned(logits, symbols, ranges, 1, None)


def test_delay_penalty() -> None:
    px = torch.zeros(2, 1, 4)
    boundary = torch.tensor([[0, 0, 1, 3], [0, 0, 1, 2]])
    ours = add_delay_penalty(px, 3, boundary, 0.5)
    assert ours.tolist() == [[[0.5, 0.0, -0.5, -1.0]], [[0.25, -0.25, -0.75, -1.25]]]
    assert add_delay_penalty(px, 3, None, 0.5)[1].tolist() == [[0.5, 0.0, -0.5, -1.0]]
    assert add_delay_penalty(px, 3, boundary, 0.0) is px


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"am": torch.zeros(2, 5, 7)}, r"am \(N, T, V\), got \(2, 4, 6\) and \(2, 5, 7\)"),
    ({"am": torch.zeros(2, 5, 6).double()}, "differ in type"),
    ({"lm": torch.zeros(2, 4, 6).half(), "am": torch.zeros(2, 5, 6).half()}, "call .float"),
    ({"symbols": torch.ones(2, 4, dtype=torch.int64)}, r"symbols must be \(N, S\) = \(2, 3\)"),
    ({"symbols": torch.ones(2, 3, dtype=torch.int32)}, "int32"),
    ({"termination_symbol": 6}, "blank id 6"),
    ({"rnnt_type": "simple"}, "unknown rnnt_type 'simple'"),
    ({"boundary": torch.zeros(2, 3, dtype=torch.int64)}, r"boundary must be \(2, 4\) int64"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "lm": torch.zeros(2, 4, 6),
        "am": torch.zeros(2, 5, 6),
        "symbols": torch.ones(2, 3, dtype=torch.int64),
        "termination_symbol": 0,
    }
    with pytest.raises(UserError, match=message):
        get_rnnt_logprobs(**(arguments | change))


def test_bad_joint_arguments() -> None:
    symbols = torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(UserError, match=r"\(N, T, S\+1, V\)"):
        get_rnnt_logprobs_joint(torch.zeros(2, 5, 6), symbols, 0)
    with pytest.raises(UserError, match=r"ranges must be \(N, T, R\) = \(2, 5, 2\)"):
        get_rnnt_logprobs_pruned(
            torch.zeros(2, 5, 2, 6), symbols, torch.zeros(2, 5, 3).long(), 0, None
        )


@pytest.mark.parametrize("rnnt_type", ["modified", "constrained"])
def test_too_few_frames_names_the_utterance(rnnt_type: RnntType) -> None:
    lm, am, symbols = case()
    with pytest.raises(AssertionError, match="utterance 1 has 3 symbols, 2 frames"):
        get_rnnt_logprobs(lm, am, symbols, 0, rnnt_type, torch.tensor([[0, 0, 3, 5], [0, 0, 3, 2]]))
    with pytest.raises(AssertionError, match="3 symbols, 2 frames"):
        get_rnnt_logprobs(lm, am[:, :2], symbols, 0, rnnt_type)
