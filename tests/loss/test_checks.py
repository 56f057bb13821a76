"""Checked arguments come back unchanged, wrong ones are named in one line."""

import pytest
import torch

from snowmelt.core.errors import UserError
from snowmelt.loss.checks import check_boundary, check_lattice, check_symbols, check_type


def test_fitting_arguments_pass() -> None:
    boundary = torch.tensor([[0, 0, 2, 3], [1, 2, 1, 2]])
    checked = check_boundary(boundary, num_utterances=2, num_symbols=2, num_frames=3)
    assert checked is boundary
    assert check_boundary(None, num_utterances=2, num_symbols=9, num_frames=3) is None
    check_lattice(torch.zeros(2, 0, 4), torch.zeros(2, 1, 3))
    check_lattice(torch.zeros(2, 2, 3), torch.zeros(2, 3, 3))
    check_symbols(torch.zeros(2, 0, dtype=torch.int64), num_utterances=2, num_symbols=0)
    for rnnt_type in ("regular", "modified", "constrained"):
        check_type(rnnt_type)


@pytest.mark.parametrize("row", [[-1, 0, 2, 3], [0, 0, 3, 3], [0, 0, 2, 4], [0, 3, 2, 2]])
def test_message_names_utterance_and_row(row: list[int]) -> None:
    boundary = torch.tensor([[0, 0, 2, 3], row])
    with pytest.raises(UserError) as caught:
        check_boundary(boundary, num_utterances=2, num_symbols=2, num_frames=3)
    message = str(caught.value)
    assert f"utterance 1 is {row}" in message and "2 symbols and 3 frames" in message
    assert "\n" not in message


def test_frames_are_counted_from_the_begin() -> None:
    boundary = torch.tensor([[1, 2, 2, 3]])  # one symbol, one frame
    sizes = {"num_utterances": 1, "num_symbols": 2, "num_frames": 3}
    check_boundary(boundary, **sizes, rnnt_type="modified")
    with pytest.raises(AssertionError, match="utterance 0 has 1 symbols, 0 frames"):
        check_boundary(torch.tensor([[1, 3, 2, 3]]), **sizes, rnnt_type="modified")
    check_boundary(torch.tensor([[1, 3, 2, 3]]), **sizes, rnnt_type="regular")
