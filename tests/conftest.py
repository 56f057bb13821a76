"""Options and limits shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest

# Tests must not depend on luck, nor on how busy the machine is.
hypothesis.settings.register_profile("snowmelt", deadline=None, derandomize=True)
hypothesis.settings.load_profile("snowmelt")

# Read by the thread pools when their libraries load: two test machines then give the same sums, and
# small tensors are not slowed down by threads that wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Read when Triton and its kernels are loaded, by whichever test comes first: no GPU is needed.
os.environ.setdefault("TRITON_INTERPRET", "1")

_OWN_GOLDEN_CASES = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=_OWN_GOLDEN_CASES,
        metavar="DIR",
        help="directory of golden cases for tests/parity (default: the few kept in tests/golden)",
    )
