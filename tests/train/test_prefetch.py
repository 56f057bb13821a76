"""Results in order, errors in their turn, and nothing that runs on when nobody listens."""

import threading
import time

import pytest

from snowmelt.train.prefetch import prefetched, reader_threads


def _slow_if_even(n: int) -> int:
    time.sleep(0.01 if n % 2 == 0 else 0.0)
    return n * n


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("depth", [1, 4])
def test_results_come_in_order(num_workers: int, depth: int) -> None:
    with reader_threads(num_workers) as threads:
        results = list(prefetched(_slow_if_even, range(9), threads, depth=depth))
    assert results == [n * n for n in range(9)]


def test_no_more_is_begun_than_depth_allows() -> None:
    begun: list[int] = []
    with reader_threads(2) as threads:
        results = prefetched(begun.append, range(100), threads, depth=3)
        next(results)
    # The block's end waits for what was begun: the one that was taken, and three ahead of it.
    assert len(begun) <= 4


def test_an_error_comes_in_its_turn() -> None:
    def fail_at_two(n: int) -> int:
        if n == 2:
            raise ValueError("no such sound")
        return n

    with reader_threads(2) as threads:
        results = prefetched(fail_at_two, range(5), threads, depth=4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="no such sound"):
            next(results)


def test_tasks_that_have_not_begun_are_dropped() -> None:
    begun: list[int] = []
    first_has_begun, may_end = threading.Event(), threading.Event()

    def wait(n: int) -> None:
        begun.append(n)
        first_has_begun.set()
        may_end.wait(10)

    with pytest.raises(RuntimeError, match="the loop failed"), reader_threads(1) as threads:
        # The first of three is running when the loop fails; it ends while the others are dropped.
        for _ in range(3):
            threads.submit(wait, 0)
        assert first_has_begun.wait(10)
        threading.Timer(0.1, may_end.set).start()
        raise RuntimeError("the loop failed")
    assert begun == [0]
