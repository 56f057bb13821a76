"""The look at the clock: the faster type wins, and the clock is read once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.models import half_products


@pytest.mark.parametrize("bf16_seconds", [0.5, 2.0])
def test_the_faster_type_wins(bf16_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def seconds(function: Callable[[], Tensor]) -> float:
        calls[0] += 1
        # One slow repetition, as something else runs, decides nothing.
        delay = 100.0 if calls[0] == 5 else 0.0
        return delay + (bf16_seconds if function().dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(half_products, "_seconds", seconds)
    half_products.bf16_is_faster.cache_clear()
    try:
        assert half_products.bf16_is_faster() == (bf16_seconds < 1.0)
        num_calls = calls[0]
        half_products.bf16_is_faster()
        assert calls[0] == num_calls
    finally:
        half_products.bf16_is_faster.cache_clear()


def test_the_real_clock_answers() -> None:
    assert half_products.bf16_is_faster() in (True, False)
