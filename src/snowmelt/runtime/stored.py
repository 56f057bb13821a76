"""What does an exported file say of the sound it wants? Sample rate and tail.

Invariant: files from elsewhere say nothing, and get what both recipes have.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from snowmelt.audio.fbank import FbankConfig
from snowmelt.core.errors import CheckpointError, ConfigError

__all__ = ["stored_features", "stored_tail"]

_MAX_TAIL_S: Final = 10.0
_EXPORT_AGAIN: Final = "export the model again"


def stored_features(
    facts: Mapping[str, Any], name: str, *, num_mel_bins: int | None = None
) -> FbankConfig:
    """The features that a file was trained with.

    Args:
        facts: what it says, numbers or their text.
        name: what to call it in messages.
        num_mel_bins: as its inputs tell; None: the usual number.

    Raises:
        CheckpointError: they are no features.
    """
    usual = FbankConfig()
    stored = facts.get("sample_rate", usual.sample_rate)
    try:
        return FbankConfig(sample_rate=int(stored), num_mel_bins=num_mel_bins or usual.num_mel_bins)
    except (TypeError, ValueError, ConfigError):
        raise CheckpointError(f"{name} says sample_rate is {stored!r}", _EXPORT_AGAIN) from None


def stored_tail(facts: Mapping[str, Any], name: str) -> float:
    """Least seconds of zero samples that a file was made for (see `audio.tail`).

    Args:
        facts: what it says, numbers or their text.
        name: what to call it in messages.

    Raises:
        CheckpointError: it is no such number.
    """
    stored = facts.get("min_tail_s", 0.4)
    try:
        tail = float(stored)
    except (TypeError, ValueError):
        tail = math.nan
    if not 0.0 <= tail <= _MAX_TAIL_S:
        raise CheckpointError(
            f"{name} says min_tail_s is {stored!r}, it must be 0 to {_MAX_TAIL_S:g}", _EXPORT_AGAIN
        )
    return tail
