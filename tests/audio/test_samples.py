"""What is taken as samples, and what is refused: the messages are tested where users meet them."""

import numpy as np
import pytest

from snowmelt.audio.samples import MAX_PEAK, as_samples
from snowmelt.core.errors import AudioError


def test_what_is_right_already_is_not_copied() -> None:
    samples = np.linspace(-1, 1, 50, dtype=np.float32)
    assert as_samples(samples) is samples


@pytest.mark.parametrize("values", [[0.0, 0.5], np.array([0.0, 0.5]), np.array([0, 0, 0.5])[::2]])
def test_lists_doubles_and_views_become_contiguous_float32(values: object) -> None:
    samples = as_samples(values)  # type: ignore[arg-type]
    assert samples.dtype == np.float32 and samples.flags.c_contiguous
    assert samples.tolist() == [0.0, 0.5]


def test_no_samples_are_samples() -> None:
    assert as_samples(np.zeros(0, np.float32)).shape == (0,)


def test_overshoot_is_no_mistake_but_16_bit_range_is() -> None:
    as_samples(np.array([MAX_PEAK, -MAX_PEAK], np.float32))
    with pytest.raises(AudioError, match="not in"):
        as_samples(np.array([MAX_PEAK + 1], np.float32))
