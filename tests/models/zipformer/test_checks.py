"""What the encoder says about input it cannot use."""

import pytest
import torch

from snowmelt.core.errors import ConfigError, DataError
from snowmelt.models.zipformer.checks import (
    check_chunk_size,
    check_features,
    check_left_context,
    check_utterances,
)


def test_features_of_another_shape() -> None:
    check_features(torch.zeros(1, 20, 80), 80)
    with pytest.raises(DataError, match=r"features must be \(N, T, 80\), got \(20, 80\)"):
        check_features(torch.zeros(20, 80), 80)
    with pytest.raises(DataError, match=r"got \(1, 20, 40\)"):
        check_features(torch.zeros(1, 20, 40), 80)


def test_utterances_that_are_too_short_or_longer_than_the_batch() -> None:
    x = torch.zeros(3, 20, 80)
    check_utterances(x, torch.tensor([20, 9, 15]))
    with pytest.raises(DataError, match="utterance 1 of the batch has 8 feature frames"):
        check_utterances(x, torch.tensor([20, 8, 3]))
    with pytest.raises(DataError, match="an utterance of 21 feature frames in a batch of 20"):
        check_utterances(x, torch.tensor([20, 9, 21]))


@pytest.mark.parametrize("chunk_size", [0, 12, -8])
def test_chunks_that_are_no_whole_frames_at_the_lowest_rate(chunk_size: int) -> None:
    check_chunk_size(16, (1, 2, 4, 8, 2))
    with pytest.raises(ConfigError, match="is no multiple of 16"):
        check_chunk_size(chunk_size, (1, 2, 4, 8, 2))


def test_unlimited_left_context() -> None:
    check_left_context(0)
    with pytest.raises(ConfigError, match="num_left_chunks is -1"):
        check_left_context(-1)
