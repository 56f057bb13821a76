"""The same numbers as the original: every run of every golden case.

    pytest tests/parity                     the few cases kept in tests/golden
    pytest tests/parity --golden DIR        all cases of a directory of the same layout

The values were computed by the original programs; a case states its tolerance and where the
original differs from exact semantics (`compat`). A run that is not compared is skipped with its
reason: a kind that is not built yet is skipped by name and never counted as passed.
"""

from typing import Any

import pytest
import torch

from tests.parity import adapters
from tests.parity.cases import Run, find_cases
from tests.parity.compare import differences


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("golden").resolve()
    runs = [run for case in find_cases(root) for run in case.runs()]
    if not runs:
        raise pytest.UsageError(f"no golden cases in {root}")
    metafunc.parametrize("run", runs, ids=[run.id for run in runs])


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_golden(run: Run) -> None:
    if "skip_reason" in run.content:
        pytest.skip(f"{run.id}: {run.content['skip_reason']}")
    adapter = adapters.adapter_for(run.case.kind)
    if adapter is None:
        pytest.skip(f"{run.id}: kind {run.case.kind} is not built yet, or not known")
    results = adapter(run)
    missing = sorted(set(run.outputs) - set(results))
    assert not missing, f"{run.id}: no result named {', '.join(missing)}"
    wrong = [line for name in run.outputs for line in differences(run, name, results[name])]
    assert not wrong, "\n".join([run.id, *wrong])
