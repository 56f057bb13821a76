"""What only the compiled program does: falls back to logarithms when needed, and uses threads."""

import threading

import numpy as np
import numpy.typing as npt
import pytest
import torch

from snowmelt.loss.lattice import numba_cpu

BOUNDARY = torch.tensor([[0, 0, 80, 400]])


def peaked_arcs(peak: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols 5 frames apart; any other arc costs `peak` nats."""
    symbol, frame = torch.arange(81)[:, None], torch.arange(401)
    is_symbol = frame == 5 * symbol
    px = torch.where(is_symbol[:80], 0.0, -peak)[None]
    py = torch.where(is_symbol[:, :400], -peak, 0.0)[None]
    return px, py


@pytest.fixture
def num_redone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls = [0]
    log_domain = numba_cpu._log_domain

    def counted(
        px: npt.NDArray[np.float64], py: npt.NDArray[np.float64], is_regular: bool
    ) -> object:
        calls[0] += 1
        return log_domain(px, py, is_regular)

    monkeypatch.setattr(numba_cpu, "_log_domain", counted)
    return calls


@pytest.mark.parametrize("peak", [3.0, 12.0, 100.0])
def test_trained_models_stay_in_the_linear_domain(peak: float, num_redone: list[int]) -> None:
    # 80 symbols missed at 12 nats each are far below the smallest float64; the true path is not.
    scores, _, _ = numba_cpu.numba_forward_backward(*peaked_arcs(peak), BOUNDARY)
    assert num_redone == [0]
    if peak > 3.0:
        assert abs(float(scores[0])) < 1e-2


def test_path_hidden_by_cheap_ends_is_found(num_redone: list[int]) -> None:
    # Row 0 is free at first and row 2 at the end, but to cross from one to the other costs 3000
    # nats in the middle. The true path runs along row 1: 800 nats early, 792 late, free between.
    # Forward, its beginning underflows beside row 0; backward, its end beside row 2: what is left
    # in float64 is the wrong path alone, at a total that looks fine.
    px = torch.full((1, 2, 301), -torch.inf)
    py = torch.zeros((1, 3, 300))
    py[0, 1, :100], py[0, 1, 200:] = -8.0, -8.0
    py[0, 0, 150:], py[0, 2, :150] = -30.0, -30.0
    px[0, 0, 0], px[0, 1, 299] = 0.0, 0.0
    px[0, :, 150] = -1500.0
    # Free arcs that help nobody: they keep the mean, which is taken off, near 0.
    px[0, 0, 200:300], px[0, 1, :100] = 0.0, 0.0
    boundary = torch.tensor([[0, 0, 2, 300]])
    scores, px_grad, _ = numba_cpu.numba_forward_backward(px, py, boundary)
    assert float(scores[0]) == pytest.approx(-800.0 - 792.0)
    assert px_grad[0, 0, 0] == px_grad[0, 1, 299] == 1.0
    assert num_redone == [1]


def test_path_lost_from_both_sides_is_found(num_redone: list[int]) -> None:
    # The true path pays 1400 nats along row 0 within the first segment and 1400 along row 1 within
    # the last, so neither pass carries it as far as the middle. A path that goes up to row 2 at
    # once and pays 3064, a little on every frame, is all that float64 sees; they never meet.
    px = torch.full((1, 2, 384), -torch.inf)
    py = torch.zeros((1, 3, 383))
    px[0, :, 0], px[0, 0, 150], px[0, 1, 382] = 0.0, 0.0, 0.0
    py[0, 0, :100], py[0, 1, 270:370], py[0, 2] = -14.0, -14.0, -8.0
    py[0, 1, :150] = -torch.inf
    scores, px_grad, _ = numba_cpu.numba_forward_backward(px, py, torch.tensor([[0, 0, 2, 383]]))
    assert float(scores[0]) == pytest.approx(-1400.0 - 1400.0 - 8.0)
    assert px_grad[0, 0, 150] == px_grad[0, 1, 382] == 1.0
    assert num_redone == [1]


def test_redone_result_is_used(num_redone: list[int]) -> None:
    px, py = peaked_arcs(3.0)
    px, py = px.clone(), py.clone()
    py[0, 40, 100:300] = 1e5  # overflows
    scores, px_grad, py_grad = numba_cpu.numba_forward_backward(px, py, BOUNDARY)
    assert num_redone == [1]
    assert scores.isfinite().all()
    assert float(px_grad.sum()) == pytest.approx(80.0, rel=1e-5)
    assert float(py_grad.sum()) == pytest.approx(400.0, rel=1e-5)


def test_threads_follow_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    px, py = torch.randn(6, 40, 301), torch.randn(6, 41, 300)
    boundary = torch.tensor([[0, 0, 40 - n, 300 - n] for n in range(6)])
    seen: set[str] = set()
    linear_domain = numba_cpu._linear_domain

    def watched(*arguments: object) -> object:
        seen.add(threading.current_thread().name)
        return linear_domain(*arguments)

    monkeypatch.setattr(numba_cpu, "_linear_domain", watched)
    num_threads_before = torch.get_num_threads()
    results = {}
    try:
        for num_threads in (1, 2):
            seen.clear()
            torch.set_num_threads(num_threads)
            results[num_threads] = numba_cpu.numba_forward_backward(px, py, boundary)
            assert len(seen) <= num_threads
            assert (threading.main_thread().name in seen) == (num_threads == 1)
    finally:
        torch.set_num_threads(num_threads_before)
    for one, two in zip(results[1], results[2], strict=True):
        assert torch.equal(one, two)
