"""The Triton kernel in Triton's interpreter: against sums over all paths and the reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.loss import lattice
from snowmelt.loss.lattice.numba_cpu import numba_forward_backward
from snowmelt.loss.lattice.reference import reference_forward_backward
from tests.loss.brute_force import brute_force, random_boundary

pytest.importorskip(
    "triton", reason="Triton is not installed (there are no wheels for this machine)"
)

# The interpreter computes with NumPy, which warns where -inf meets -inf.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

Program = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(scope="module")
def program() -> Program:
    # In the interpreter: see tests/conftest.py.
    from snowmelt.loss.lattice.triton_cuda import triton_forward_backward

    return triton_forward_backward


def random_case(
    is_regular: bool, seed: int, n: int = 4, s: int = 3, t: int = 4, scale: float = 3.0
) -> tuple[Tensor, Tensor, list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    px = scale * torch.randn(n, s, t + int(is_regular), generator=generator, dtype=torch.float64)
    py = scale * torch.randn(n, s + 1, t, generator=generator, dtype=torch.float64)
    return px, py, [random_boundary(s, t, generator) for _ in range(n)]


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("num_symbols", [0, 1, 3])
@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_sums_all_paths(program: Program, num_symbols: int, scale: float, is_regular: bool) -> None:
    px, py, rows = random_case(is_regular, 1, s=num_symbols, scale=scale)
    px[torch.rand(px.shape, generator=torch.Generator().manual_seed(2)) < 0.2] = -torch.inf
    results = program(px, py, torch.tensor(rows))
    for ours, wanted in zip(results, brute_force(px, py, rows), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_others(program: Program, dtype: torch.dtype, is_regular: bool) -> None:
    px, py, _ = random_case(is_regular, 3, n=3, s=9, t=20)
    px, py = px.to(dtype), py.to(dtype)
    boundary = torch.tensor([[0, 0, 9, 20], [2, 3, 7, 17], [0, 0, 0, 5]])
    ours = program(px, py, boundary)
    for other in (reference_forward_backward, numba_forward_backward):
        for first, second in zip(ours, other(px, py, boundary), strict=True):
            assert first.dtype == dtype
            torch.testing.assert_close(
                first, second, rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=1e-7
            )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_bad_scores_stay_in_their_utterance(program: Program, bad: float) -> None:
    px, py, _ = random_case(True, 4, n=3, s=2, t=5)
    boundary = torch.tensor([[0, 0, 2, 5]]).expand(3, 4)
    alone = program(px, py, boundary)
    py[1, :, 2] = bad
    scores, px_grad, py_grad = program(px, py, boundary)
    assert not scores[1].isfinite()
    assert px_grad[1].eq(0).all() and py_grad[1].eq(0).all()
    for n in (0, 2):
        assert scores[n] == alone[0][n]
        assert torch.equal(px_grad[n], alone[1][n]) and torch.equal(py_grad[n], alone[2][n])


def test_inputs_need_not_be_contiguous(program: Program) -> None:
    px, py, _ = random_case(True, 5, n=2)
    boundary = torch.tensor([[0, 0, 3, 4], [1, 0, 2, 3]])
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (px, py)]
    for ours, wanted in zip(
        program(strided[0], strided[1], boundary), program(px, py, boundary), strict=True
    ):
        assert torch.equal(ours, wanted)


def test_who_computes_where(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    choose = lattice._program.__wrapped__
    assert choose("cpu") is numba_forward_backward
    assert choose("cuda") is program
    assert choose("mps") is reference_forward_backward
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose("cuda") is reference_forward_backward
