"""Numbers of a configuration: which are refused, and how they are named."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.presets.ranges import require_numbers


@dataclass(frozen=True)
class _Settings:
    name: str = "x"
    flag: bool = False
    rate: float = 0.0
    dims: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": float("nan")}, "rate is nan, it must be a finite number"),
        ({"rate": float("-inf")}, "rate is -inf, it must be a finite number"),
        ({"rate": -0.5}, "rate is -0.5, it must not be negative"),
        ({"dims": (1, 0)}, "dims is 1,0, it must be positive (hint: leave dims out"),
    ],
)
def test_what_is_out_of_range_is_named(change: dict[str, Any], message: str) -> None:
    require_numbers(_Settings(), positive=["dims"], not_negative=["rate"])
    with pytest.raises(ConfigError) as caught:
        require_numbers(replace(_Settings(), **change), positive=["dims"], not_negative=["rate"])
    assert str(caught.value).startswith(message)
