"""Processes that train together: they add up, they fail together, and the reason gets out."""

import errno
import os
import signal
import threading

import pytest
import torch

from snowmelt.core.errors import DataError, UserError
from snowmelt.train.distributed import (
    Ranks,
    any_rank,
    launch,
    num_cores,
    process_group,
    sum_over_ranks,
)

CPU = torch.device("cpu")


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(CPU) as ranks:
        assert ranks == Ranks(0, 1) and ranks.is_main
        assert sum_over_ranks((1.5, 2.0), ranks, CPU) == [1.5, 2.0]
        assert any_rank(True, ranks, CPU) and not any_rank(False, ranks, CPU)
    assert num_cores() >= 1


def test_one_process_is_this_one() -> None:
    pids: list[int] = []
    launch(1, lambda: pids.append(os.getpid()))
    assert pids == [os.getpid()]


def _add_up(fail_with: str) -> None:
    with process_group(CPU) as ranks:
        assert sum_over_ranks((float(ranks.rank), 1.0), ranks, CPU) == [1.0, 2.0]
        assert any_rank(ranks.rank == 1, ranks, CPU)
        if ranks.rank == 1 and fail_with == "user error":
            raise DataError("a.wav is empty", "record it again")
        if ranks.rank == 1 and fail_with == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.pt")
        if ranks.rank == 1 and fail_with == "bug":
            raise KeyError("missing name")
        if ranks.rank == 1 and fail_with == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fail_with == "stop":
            if ranks.rank == 0:
                os.kill(os.getppid(), signal.SIGTERM)
            threading.Event().wait(60)
        # The one that did not fail waits here for the other.
        any_rank(False, ranks, CPU)


@pytest.mark.slow
def test_two_processes_add_up() -> None:
    launch(2, _add_up, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        ("user error", DataError, r"^a\.wav is empty \(hint: record it again\)$"),
        ("full disk", UserError, r"^a\.pt: No space left on device$"),
        ("bug", RuntimeError, "process 1 of 2:(.|\n)*KeyError: 'missing name'"),
        ("kill", UserError, "process 1 was killed by the system"),
        ("stop", KeyboardInterrupt, None),
    ],
)
def test_the_reason_of_the_one_that_failed_gets_out(
    failure: str, kind: type[BaseException], reason: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind, match=reason):
        launch(2, _add_up, failure)
    assert "Traceback" not in capfd.readouterr().err
