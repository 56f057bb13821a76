"""What the encoders say about input they cannot use, and what they see of padding."""

import pytest
import torch

from snowmelt.core.errors import DataError
from snowmelt.models.features import (
    check_features,
    check_utterances,
    fill_padding,
    make_pad_mask,
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


def test_pad_mask_is_as_long_as_the_longest_or_as_asked() -> None:
    lengths = torch.tensor([1, 3])
    assert make_pad_mask(lengths).tolist() == [[False, True, True], [False, False, False]]
    assert make_pad_mask(lengths, 4)[1].tolist() == [False, False, False, True]


def test_what_lies_behind_an_utterance_is_replaced() -> None:
    x = torch.full((2, 3, 4), float("nan"))
    x[0, :2] = 1.0
    x[1] = 2.0
    filled = fill_padding(x, torch.tensor([2, 3]))
    assert filled[0, 2].tolist() == pytest.approx([-23.02585] * 4)
    assert torch.equal(filled[1], x[1]) and torch.equal(filled[0, :2], x[0, :2])
