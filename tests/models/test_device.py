"""Which device does a name mean, and what is said when the machine has none?"""

import pytest
import torch

from snowmelt.core.errors import ConfigError
from snowmelt.models.device import pick_device


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda, mps"):
        pick_device("gpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(ConfigError, match="no usable mps device"):
            pick_device("mps")
