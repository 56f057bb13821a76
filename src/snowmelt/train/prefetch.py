"""How is the next batch read while this one is learnt from? A few tasks ahead, in order.

Invariant: results come in the order of the tasks, whatever the number of threads; nothing is
computed that is further ahead than `depth`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["prefetched", "reader_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def reader_threads(num_workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for `prefetched`; when the block ends, tasks that have not begun are dropped."""
    threads = ThreadPoolExecutor(num_workers)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def prefetched(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    threads: ThreadPoolExecutor,
    *,
    depth: int,
) -> Iterator[_Result]:
    """`function` of each item, in order.

    Args:
        function: called in another thread; what it raises is raised here, in its turn.
        items: its arguments.
        threads: where it runs.
        depth: most results that wait or are being computed while one is used; at least 1.
    """
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
