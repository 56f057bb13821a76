"""One layer through time: the equations, and their gradients."""

import pytest
import torch
from torch import Tensor

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
