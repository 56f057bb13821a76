"""Is a saved optimiser state of other parameters refused, with one line that says why?"""

import pytest

from snowmelt.core.errors import CheckpointError
from snowmelt.optim.saved_state import check_groups, misfit

OURS = [{"params": ["p", "q"], "param_names": ["a", "b"]}]


@pytest.mark.parametrize(
    "saved",
    [
        {"params": [0, 1], "param_names": ["a", "b"]},
        {"params": [0, 1]},  # icefall saves no names
    ],
)
def test_what_fits_passes(saved):
    check_groups([saved], OURS)


def test_names_we_do_not_know_are_not_compared():
    check_groups([{"params": [0, 1], "param_names": ["a", "b"]}], [{"params": ["p", "q"]}])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([], "0 parameter groups instead of 1"),
        ([{"params": [0]}], "1 parameters instead of 2"),
        (
            [{"params": [0, 1], "param_names": ["a", "c"]}],
            "parameter 'c' where the model has 'b'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(saved, message):
    with pytest.raises(CheckpointError, match=f"does not fit the model: {message}"):
        check_groups(saved, OURS)


def test_the_error_says_what_to_do():
    assert misfit("this").hint.startswith("resume with the model options of that checkpoint")
