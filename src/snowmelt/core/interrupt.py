"""Was this process asked to stop? Ctrl-C and SIGTERM become a flag that the work looks at.

A step that has begun can then be finished and its result kept.

Invariant: while a block listens, no signal breaks into it, except a second Ctrl-C.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Final

__all__ = ["stop_requests"]

# Systems and wrappers send a signal twice (Linux does when a parent dies); people take longer.
_SAME_REQUEST_S: Final = 0.3


@contextmanager
def stop_requests(notify: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, while the block runs, instead of ending the process.

    A second SIGINT raises KeyboardInterrupt. Outside the main thread, where Python knows no
    signals, nobody sets the event.

    Args:
        notify: called at every signal that sets the event; runs between two instructions of the
            block, so it must be short.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    first_interrupt = math.inf

    def request(signal_number: int, frame: FrameType | None) -> None:
        nonlocal first_interrupt
        if signal_number == signal.SIGINT:
            first_interrupt = min(first_interrupt, monotonic())
            if monotonic() > first_interrupt + _SAME_REQUEST_S:
                raise KeyboardInterrupt
        requested.set()
        if notify is not None:
            notify()

    previous = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)
