"""One layer through time: the equations, and their gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from snowmelt.models.lstm import cpu_recurrence
from snowmelt.models.lstm.recurrence import lstm_recurrence

NUM_FRAMES, BATCH, CELLS = 5, 3, 4


def _inputs(projected: bool, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    """gates_in, weight_hh, weight_hr, h, c."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    size = 3 if projected else CELLS
    weight_hr = draw(size, CELLS) if projected else None
    return [
        draw(NUM_FRAMES, BATCH, 4 * CELLS),
        draw(4 * CELLS, size),
        weight_hr,
        draw(BATCH, size),
        draw(BATCH, CELLS),
    ]


def _written_out(
    gates_in: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """The equations, one frame after the other."""
    hs, cs = [], []
    for at in gates_in:
        i, f, g, o = (at + h @ weight_hh.t()).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        m = o.sigmoid() * c.tanh()
        h = m if weight_hr is None else m @ weight_hr.t()
        hs.append(h)
        cs.append(c)
    return torch.stack(hs), torch.stack(cs)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_is_what_the_equations_say(projected: bool, with_gradient: bool) -> None:
    inputs = _inputs(projected)
    inputs[0].requires_grad_(with_gradient)
    expected = _written_out(*inputs)
    for result, wanted in zip(lstm_recurrence(*inputs), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("projected", [True, False])
def test_gradients(projected: bool) -> None:
    gates_in, weight_hh, weight_hr, h, c = _inputs(projected)
    leaves = [x.requires_grad_() for x in (gates_in, weight_hh, weight_hr) if x is not None]
    assert torch.autograd.gradcheck(
        lambda x, hh, hr=None: lstm_recurrence(x, hh, hr, h, c)[0], leaves
    )


def test_long_sequences_agree_in_both_directions() -> None:
    """Hundreds of frames: the loops of both directions are those of the equations throughout."""
    gates_in, weight_hh, weight_hr, h, c = _inputs(projected=True)
    gates_in = gates_in.repeat(60, 1, 1)
    leaves = [x.requires_grad_() for x in (gates_in, weight_hh, weight_hr)]
    grad = torch.randn(len(gates_in), BATCH, 3, dtype=torch.float64)
    gradients = []
    for function in (lstm_recurrence, _written_out):
        out, _ = function(*leaves, h, c)
        gradients.append([out, *torch.autograd.grad(out, leaves, grad)])
    for result, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(result, wanted)


def test_backward_may_be_repeated() -> None:
    inputs = _inputs(projected=True)
    inputs[1].requires_grad_()
    inputs[0].requires_grad_()
    out, _ = lstm_recurrence(*inputs)
    first, second = (
        torch.autograd.grad(out.square().sum(), inputs[:2], retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_cells_carry_no_gradient() -> None:
    inputs = _inputs(projected=True)
    inputs[0].requires_grad_()
    out, cells = lstm_recurrence(*inputs)
    assert out.requires_grad
    assert not cells.requires_grad


@pytest.mark.parametrize("projected", [True, False])
def test_half_precision_is_near(projected: bool) -> None:
    """bfloat16 in and out, but cells and gates are summed up in float32."""
    wide = _inputs(projected, torch.float32)
    half = [wide[0].bfloat16(), *wide[1:]]
    gradients = []
    for gates_in, *rest in (wide, half):
        leaves = [x.requires_grad_() for x in (gates_in, *rest[:2]) if x is not None]
        out, cells = lstm_recurrence(gates_in, *rest)
        assert out.dtype == gates_in.dtype
        assert cells.dtype == torch.float32
        grads = torch.autograd.grad(out.float().square().sum(), leaves)
        assert [g.dtype for g in grads] == [x.dtype for x in leaves]
        gradients.append([out, cells, *grads])
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 0.03 * a.abs().max()


def _float32_inputs(num_frames: int = NUM_FRAMES) -> list[Tensor | None]:
    """Of sizes that the compiled loops take; weights too small for chaos."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(num_frames, BATCH, 128), (128, 16), (16, 32), (BATCH, 16), (BATCH, 32)]
    gates_in, *weights, h, c = (torch.randn(shape, generator=generator) for shape in shapes)
    return [gates_in, *(0.25 * weight for weight in weights), h, c]


def test_compiled_gradients_are_those_of_the_equations() -> None:
    """float32 as in training on the CPU, against autograd on the equations in float64."""
    inputs = _float32_inputs(num_frames=60)
    grad = torch.randn(60, BATCH, 16)
    gradients = []
    for function, dtype in ((lstm_recurrence, torch.float32), (_written_out, torch.float64)):
        gates_in, weight_hh, weight_hr, h, c = (x.to(dtype) for x in inputs)
        leaves = [x.clone().requires_grad_() for x in (gates_in, weight_hh, weight_hr)]
        out, _ = function(*leaves, h, c)
        gradients.append([out, *torch.autograd.grad(out, leaves, grad.to(dtype))])
    for result, wanted in zip(*gradients, strict=True):
        difference = (result.double() - wanted).abs().max()
        assert difference < 2e-6 * wanted.abs().max()


@pytest.fixture
def compiled_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one name whenever compiled loops run."""
    calls: list[str] = []
    for name in ("cpu_forward", "cpu_backward"):
        function = getattr(cpu_recurrence, name)

        def counted(*args: object, name: str = name, function: Any = function) -> object:
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(cpu_recurrence, name, counted)
    return calls


def test_training_is_compiled(compiled_calls: list[str]) -> None:
    inputs = _float32_inputs()
    inputs[0].requires_grad_()
    lstm_recurrence(*inputs)[0].sum().backward()
    assert compiled_calls == ["cpu_forward", "cpu_backward"]


def test_without_a_gradient_only_many_frames_are_compiled(compiled_calls: list[str]) -> None:
    short = lstm_recurrence(*_float32_inputs(num_frames=170))
    assert compiled_calls == []
    long = lstm_recurrence(*_float32_inputs(num_frames=171))
    assert compiled_calls == ["cpu_forward"]
    assert short[0].shape == (170, BATCH, 16)
    assert long[0].shape == (171, BATCH, 16)


def test_float64_and_other_sizes_are_plain(compiled_calls: list[str]) -> None:
    for inputs in (
        [x.double() for x in _float32_inputs()],
        _inputs(projected=True, dtype=torch.float32),
    ):
        inputs[0].requires_grad_()
        lstm_recurrence(*inputs)[0].sum().backward()
    assert compiled_calls == []


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_trace_holds_the_whole_computation(compiled_calls: list[str]) -> None:
    """A compiled call would be a constant in it."""
    inputs = _float32_inputs(num_frames=200)
    with torch.no_grad():
        traced = torch.jit.trace(lambda *x: lstm_recurrence(*x)[0], tuple(inputs))
        others = [0.5 * x for x in inputs]
        expected = _written_out(*others)[0]
        torch.testing.assert_close(traced(*others), expected, rtol=1e-5, atol=1e-5)
