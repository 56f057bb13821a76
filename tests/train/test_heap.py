import platform
import resource

import pytest
import torch

from snowmelt.train.heap import keep_freed_memory


def test_a_tensor_made_again_needs_no_new_pages():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    assert keep_freed_memory()
    before = 0
    for turn in range(40):
        if turn == 30:  # by now the heap has room for one
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**23)
    num_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    # Given back and asked for again, each would be 2^13 pages of 4 KiB.
    assert num_faults < 2**13


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
