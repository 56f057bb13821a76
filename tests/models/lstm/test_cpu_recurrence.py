"""The compiled frames of an LSTM layer give what its equations give, for every size of batch."""

import pytest
import torch
from torch import Tensor

from snowmelt.models.lstm import cpu_recurrence, recurrence
from snowmelt.models.lstm.cpu_recurrence import cpu_backward, cpu_forward, fits

# 4H = 640 is more than one block of columns and more than one run of rows; P leaves a block half
# empty.
CELLS, PROJECTED = 160, 48
NUM_FRAMES = 5


class Inputs:
    """Of one layer, drawn with a fixed seed."""

    def __init__(self, batch_size: int, *, projected: bool = True, num_frames: int = NUM_FRAMES):
        generator = torch.Generator().manual_seed(batch_size)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        size = PROJECTED if projected else CELLS
        self.gates_in = draw(num_frames, batch_size, 4 * CELLS)
        self.weight_hh = draw(4 * CELLS, size) / size**0.5
        self.weight_hr = draw(size, CELLS) / CELLS**0.5 if projected else None
        self.h = draw(batch_size, size)
        self.c = draw(batch_size, CELLS)
        self.grad = draw(num_frames, batch_size, size)

    def weights(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor | None]:
        return self.weight_hh.to(dtype), None if self.weight_hr is None else self.weight_hr.to(
            dtype
        )

    def compiled(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        weights = self.weights()
        gates, hs, cs = cpu_forward(self.gates_in.to(dtype), *weights, self.h, self.c)
        grads = cpu_backward(self.grad.to(dtype), *weights, gates, cs)
        return [gates, hs, cs, *grads]

    def plain(self) -> list[Tensor]:
        """In float64."""
        weights = self.weights(torch.float64)
        gates, hs, cs = recurrence._plain_forward(
            self.gates_in.double(), *weights, self.h.double(), self.c.double()
        )
        return [gates, hs, cs, *recurrence._plain_backward(self.grad.double(), *weights, gates, cs)]


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 6, 7, 13])
def test_float32_equals_the_plain_path_in_float64(batch_size: int, projected: bool) -> None:
    inputs = Inputs(batch_size, projected=projected)
    for result, wanted in zip(inputs.compiled(), inputs.plain(), strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), wanted, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("has_products", [True, False])
@pytest.mark.parametrize("projected", [True, False])
def test_bfloat16_is_near(
    projected: bool, has_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors that multiply bfloat16, and on those that do not."""
    if has_products and not cpu_recurrence.HAS_BFLOAT16_PRODUCTS:
        has_products = False  # this processor is one of the others
    monkeypatch.setattr(cpu_recurrence, "HAS_BFLOAT16_PRODUCTS", has_products)
    inputs = Inputs(5, projected=projected)
    gates, hs, cs, *grads = inputs.compiled(torch.bfloat16)
    assert gates.dtype == cs.dtype == torch.float32
    assert {x.dtype for x in (hs, *grads)} == {torch.bfloat16}
    for result, wanted in zip((gates, hs, cs, *grads), inputs.plain(), strict=True):
        assert (result.double() - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_rows_do_not_meet() -> None:
    """Bit for bit, whatever shares the batch, and however many rows a product has."""
    together = Inputs(7)
    results = together.compiled()
    for n in range(7):
        alone = Inputs(7)
        for name in ("gates_in", "grad"):
            setattr(alone, name, getattr(alone, name)[:, n : n + 1])
        alone.h, alone.c = alone.h[n : n + 1], alone.c[n : n + 1]
        for one, all_ in zip(alone.compiled(), results, strict=True):
            assert torch.equal(one[:, 0], all_[:, n])


def test_threads_change_nothing() -> None:
    inputs = Inputs(5, num_frames=40)
    expected = inputs.compiled()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        results = inputs.compiled()
    finally:
        torch.set_num_threads(num_threads)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_memory_may_be_laid_out_in_any_way() -> None:
    inputs = Inputs(3)
    expected = inputs.compiled()
    for name in ("gates_in", "grad"):
        value = getattr(inputs, name)
        setattr(inputs, name, value.transpose(0, 1).contiguous().transpose(0, 1))
    inputs.weight_hh = inputs.weight_hh.t().contiguous().t()
    assert all(torch.equal(a, b) for a, b in zip(inputs.compiled(), expected, strict=True))


def test_gates_of_extreme_and_small_values() -> None:
    """sigmoid and tanh at their ends, and tanh near 0 with all its digits."""
    values = [-1e30, -200.0, -90.0, -20.0, -1e-3, -1e-7, 0.0, 1e-9, 1e-4, 0.3, 5.0, 90.0, 1e30]
    x = torch.tensor([*values, torch.inf, -torch.inf, torch.nan])
    gates_in = x.repeat(4).view(1, 1, -1)
    zeros = torch.zeros(1, 16)
    gates, hs, _ = cpu_forward(gates_in, torch.zeros(64, 16), None, zeros, zeros)
    i, f, g, o = gates.view(4, 16)
    for gate in (i, f, o):
        torch.testing.assert_close(gate, x.sigmoid(), rtol=1e-6, atol=1e-30, equal_nan=True)
    torch.testing.assert_close(g, x.tanh(), rtol=1e-6, atol=0.0, equal_nan=True)
    assert hs[1, 0, -1].isnan()


def test_bfloat16_is_rounded_to_the_nearest() -> None:
    """h is the float32 result of the same bfloat16 inputs, rounded as torch rounds."""
    inputs = Inputs(3, projected=False, num_frames=1)
    gates_in, zeros = inputs.gates_in.bfloat16(), torch.zeros_like(inputs.h)
    _, hs, _ = cpu_forward(gates_in, inputs.weight_hh, None, zeros, inputs.c)
    _, wide, _ = cpu_forward(gates_in.float(), inputs.weight_hh, None, zeros, inputs.c)
    assert torch.equal(hs[1], wide[1].bfloat16())


def test_sizes_that_fit() -> None:
    assert fits(torch.empty(4 * 32, 16))
    assert not fits(torch.empty(4 * 32, 24))
    assert not fits(torch.empty(4 * 24, 16))
