"""Contract of both lattice programs: they agree with the sum over all paths and with each other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.loss.lattice import lattice_forward_backward
from snowmelt.loss.lattice.numba_cpu import numba_forward_backward
from snowmelt.loss.lattice.reference import reference_forward_backward
from tests.loss.brute_force import brute_force, random_boundary

Program = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

# float64 sums of at most 8 terms a path; occupations are at most 1.
RTOL, ATOL = 1e-10, 1e-12


def random_arcs(
    n: int, s: int, t: int, is_regular: bool, scale: float, seed: int
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    px = scale * torch.randn(n, s, t + int(is_regular), generator=generator, dtype=torch.float64)
    py = scale * torch.randn(n, s + 1, t, generator=generator, dtype=torch.float64)
    return px, py


@pytest.fixture(params=[numba_forward_backward, reference_forward_backward])
def program(request: pytest.FixtureRequest) -> Program:
    chosen: Program = request.param
    return chosen


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("scale", [1.0, 30.0, 2000.0])
@pytest.mark.parametrize("num_symbols", [0, 1, 4])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_sums_all_paths(
    program: Program, num_frames: int, num_symbols: int, scale: float, is_regular: bool
) -> None:
    px, py = random_arcs(4, num_symbols, num_frames, is_regular, scale, seed=1)
    generator = torch.Generator().manual_seed(2)
    rows = [[0, 0, num_symbols, num_frames]]
    rows += [random_boundary(num_symbols, num_frames, generator) for _ in range(3)]
    results = program(px, py, torch.tensor(rows))
    for ours, wanted in zip(results, brute_force(px, py, rows), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_forbidden_arcs(program: Program, is_regular: bool, seed: int) -> None:
    px, py = random_arcs(3, 3, 4, is_regular, 50.0, seed)
    generator = torch.Generator().manual_seed(seed)
    for arcs in (px, py):
        arcs[torch.rand(arcs.shape, generator=generator) < 0.3] = -torch.inf
    rows = [random_boundary(3, 4, generator) for _ in range(3)]
    results = program(px, py, torch.tensor(rows))
    for ours, wanted in zip(results, brute_force(px, py, rows), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("kind", ["random", "huge", "banded", "cheap detour", "negative drift"])
def test_programs_agree_on_hostile_scores(kind: str, is_regular: bool) -> None:
    px, py = random_arcs(3, 20, 60, is_regular, 1.0, seed=5)
    if kind == "huge":
        px, py = 3000.0 * px, 3000.0 * py
    if kind == "banded":
        away = (torch.arange(py.size(2)) / 3 - torch.arange(21)[:, None]).abs() > 3
        py[:, away] = -torch.inf
        px[:, :, : py.size(2)][:, away[:-1]] = -torch.inf
    if kind == "cheap detour":
        # Early and late, rows the true path does not visit are cheap by 800 nats: in the linear
        # domain both its beginning and its end underflow, only its middle is better.
        py[:, 0, :25] += 40.0
        py[:, -1, 35:] += 40.0
        px[:, :, 26:34] -= 300.0
    if kind == "negative drift":
        px, py = px - 90.0, py - 5.0
    boundary = torch.tensor([[0, 0, 20, 60], [3, 5, 20, 50], [0, 0, 7, 60]])
    for ours, wanted in zip(
        numba_forward_backward(px, py, boundary),
        reference_forward_backward(px, py, boundary),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("is_regular", [True, False])
def test_occupations_are_conserved(program: Program, is_regular: bool) -> None:
    px, py = random_arcs(2, 4, 9, is_regular, 1.0, seed=3)
    if is_regular:
        px[:, :, -1] = -torch.inf
    _, px_grad, py_grad = program(px, py, torch.tensor([[0, 0, 4, 9]]).expand(2, 4))
    torch.testing.assert_close(px_grad.sum(dim=(1, 2)), torch.full((2,), 4.0).double())
    if is_regular:
        torch.testing.assert_close(py_grad.sum(dim=1), torch.ones(2, 9).double())
    else:
        torch.testing.assert_close(py_grad.sum(dim=(1, 2)), torch.full((2,), 5.0).double())
        frames = px_grad.sum(dim=1) + py_grad.sum(dim=1)
        torch.testing.assert_close(frames, torch.ones(2, 9).double())


def test_impossible_utterance_has_no_gradient(program: Program) -> None:
    px, py = random_arcs(3, 2, 5, True, 1.0, seed=4)
    boundary = torch.tensor([[0, 0, 2, 5]]).expand(3, 4)
    alone = program(px, py, boundary)
    px[1, 1] = -torch.inf  # symbol 1 can never be emitted
    scores, px_grad, py_grad = program(px, py, boundary)
    assert scores[1] == -torch.inf
    assert px_grad[1].eq(0).all() and py_grad[1].eq(0).all()
    for n in (0, 2):
        assert scores[n] == alone[0][n]
        assert torch.equal(px_grad[n], alone[1][n]) and torch.equal(py_grad[n], alone[2][n])


def test_more_symbols_than_frames_is_impossible_if_not_regular(program: Program) -> None:
    px, py = random_arcs(1, 3, 2, False, 1.0, seed=4)
    scores, px_grad, py_grad = program(px, py, torch.tensor([[0, 0, 3, 2]]))
    assert scores.tolist() == [-torch.inf]
    assert px_grad.eq(0).all() and py_grad.eq(0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_stays_in_its_utterance(program: Program, bad: float) -> None:
    px, py = random_arcs(3, 2, 5, True, 1.0, seed=4)
    boundary = torch.tensor([[0, 0, 2, 5], [0, 0, 2, 5], [0, 0, 2, 3]])
    alone = program(px, py, boundary)
    py[1, 1, 2] = bad
    py[2, :, 4] = bad  # behind the end: nobody looks
    scores, px_grad, py_grad = program(px, py, boundary)
    assert not scores[1].isfinite()
    assert px_grad[1].eq(0).all() and py_grad[1].eq(0).all()
    for n in (0, 2):
        assert scores[n] == alone[0][n]
        assert torch.equal(px_grad[n], alone[1][n]) and torch.equal(py_grad[n], alone[2][n])


def test_float32_in_float32_out_but_float64_inside(program: Program) -> None:
    px, py = random_arcs(2, 30, 100, True, 3.0, seed=6)
    boundary = torch.tensor([[0, 0, 30, 100], [0, 0, 12, 77]])
    exact = program(px.float().double(), py.float().double(), boundary)
    ours = program(px.float(), py.float(), boundary)
    for short, long in zip(ours, exact, strict=True):
        assert short.dtype == torch.float32
        torch.testing.assert_close(short, long.float(), rtol=1e-6, atol=1e-7)


def test_inputs_are_left_alone_and_need_not_be_contiguous(program: Program) -> None:
    px, py = random_arcs(2, 3, 5, True, 1.0, seed=7)
    boundary = torch.tensor([[0, 0, 3, 4]]).expand(2, 4)
    wanted = program(px, py, boundary)
    strided_px = px.transpose(1, 2).contiguous().transpose(1, 2)
    strided_py = py.transpose(0, 2).contiguous().transpose(0, 2)
    ours = program(strided_px, strided_py, boundary)
    assert torch.equal(strided_px, px) and torch.equal(strided_py, py)
    for first, second in zip(ours, wanted, strict=True):
        assert torch.equal(first, second)


def test_dispatch_leaves_no_history() -> None:
    px, py = random_arcs(1, 2, 3, True, 1.0, seed=8)
    results = lattice_forward_backward(
        px.requires_grad_(), py.requires_grad_(), torch.tensor([[0, 0, 2, 3]])
    )
    assert not any(result.requires_grad for result in results)
