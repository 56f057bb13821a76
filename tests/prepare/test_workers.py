"""Work of several processes comes back in order, and a killed one is noticed."""

import os
import signal
import time

import pytest

from snowmelt.core.errors import DataError, UserError
from snowmelt.prepare.workers import Workers


def _kill_me(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _fail(number: int) -> int:
    raise DataError(f"{number} is no good", "take another")


def _pid(number: int) -> int:
    """The process that works."""
    return os.getpid()


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_results_come_in_order(num_jobs: int) -> None:
    with Workers(num_jobs) as workers:
        assert list(workers.map(abs, range(-9, 0))) == list(range(9, 0, -1))
        with pytest.raises(DataError, match=r"4 is no good \(hint: take another\)"):
            list(workers.map(_fail, [4]))


def test_a_killed_worker_is_one_line() -> None:
    with (
        Workers(2) as workers,
        pytest.raises(UserError, match="worker process was killed.*run the same command again"),
    ):
        list(workers.map(_kill_me, range(9)))


def test_workers_end_with_their_parent() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        with Workers(2) as workers:
            pids = set(workers.map(_pid, range(8)))
            os.write(write, " ".join(map(str, pids)).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    pids = [int(word) for word in os.read(read, 1000).split()]
    os.close(read)
    os.close(write)
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}/cmdline") and _runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
