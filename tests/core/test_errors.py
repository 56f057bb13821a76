"""Does every user error read as one line and survive the way between processes?"""

import pickle

import pytest

from snowmelt.core import errors
from snowmelt.core.errors import AudioError, CheckpointError, SnowmeltError, UserError


def test_message_and_hint_are_one_line():
    error = UserError("first\n  second", "do\nthis")
    assert str(error) == "first second (hint: do this)"
    assert str(UserError("alone")) == "alone"


def test_tree():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), SnowmeltError)
    assert issubclass(AudioError, UserError)
    assert issubclass(UserError, ValueError)


def test_pickles():
    error = pickle.loads(pickle.dumps(CheckpointError("x.pt is truncated", "copy it again")))
    assert type(error) is CheckpointError
    assert str(error) == "x.pt is truncated (hint: copy it again)"


def test_class_can_be_rebuilt_from_its_text():
    # torch's DataLoader raises a worker's error again as type(error)(text).
    with pytest.raises(AudioError, match="no samples"):
        raise AudioError(str(AudioError("no samples", "check a.wav")))
