"""Is every number of a configuration in its range? NaN and infinity are in none.

Invariant: knows no configuration; a function returns None or raises a one-line ConfigError.
"""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from snowmelt.core.errors import ConfigError

__all__ = ["require_numbers"]


def require_numbers(
    config: Any, *, positive: Iterable[str] = (), not_negative: Iterable[str] = ()
) -> None:
    """Check the numbers of a dataclass, also those inside tuples.

    Args:
        config: a dataclass; all its numbers must be finite.
        positive: names of fields that must be above 0.
        not_negative: names of fields that must be 0 or more.

    Raises:
        ConfigError: a number is out of its range; it is named.
    """
    positive, not_negative = set(positive), set(not_negative)
    for field in fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if not isinstance(number, int | float):
                continue
            if not math.isfinite(number):
                raise _out_of_range(field.name, value, "must be a finite number")
            if field.name in positive and number <= 0:
                raise _out_of_range(field.name, value, "must be positive")
            if field.name in not_negative and number < 0:
                raise _out_of_range(field.name, value, "must not be negative")


def _out_of_range(name: str, value: Any, requirement: str) -> ConfigError:
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return ConfigError(
        f"{name} is {shown}, it {requirement}", f"leave {name} out to take the preset's value"
    )
