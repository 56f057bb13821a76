"""Signals that ask for a stop are heard once, kindly; the second Ctrl-C is obeyed at once."""

import os
import signal
import threading

import pytest

from snowmelt.core import interrupt
from snowmelt.core.interrupt import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_flag(number: signal.Signals) -> None:
    heard = []
    before = signal.getsignal(number)
    with stop_requests(lambda: heard.append(number)) as requested:
        assert not requested.is_set()
        os.kill(os.getpid(), number)
        assert requested.wait(5)
    assert heard == [number]
    assert signal.getsignal(number) is before


def test_sigterm_may_be_repeated_but_a_second_ctrl_c_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(interrupt, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt), stop_requests() as requested:
        # The same signal twice at once is one request.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert requested.wait(5)
        now = 101.0
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), stop_requests():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before, flags = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stop_requests() as requested:
            flags.append((requested.is_set(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [(False, True)]
