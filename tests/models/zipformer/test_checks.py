"""What the Zipformer says about settings it cannot use."""

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.models.zipformer.checks import check_chunk_size, check_left_context


@pytest.mark.parametrize("chunk_size", [0, 12, -8])
def test_chunks_that_are_no_whole_frames_at_the_lowest_rate(chunk_size: int) -> None:
    check_chunk_size(16, (1, 2, 4, 8, 2))
    with pytest.raises(ConfigError, match="is no multiple of 16"):
        check_chunk_size(chunk_size, (1, 2, 4, 8, 2))


def test_unlimited_left_context() -> None:
    check_left_context(0)
    with pytest.raises(ConfigError, match="num_left_chunks is -1"):
        check_left_context(-1)
