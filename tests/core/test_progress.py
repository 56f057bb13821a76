"""Does progress stay off standard output, and does it become log lines without a terminal?"""

import io
import logging
import sys

from snowmelt.core import progress
from snowmelt.core.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(count):
    with progress_bar("reading", total=count) as bar:
        for done in range(count):
            bar.advance(note=f"loss {done}" if done > 2 else "")


def test_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    run(3)
    assert "reading" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_short_job_without_terminal_says_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        run(1000)
    assert caplog.messages == []
    assert sys.stderr.getvalue() == ""


def test_long_job_without_terminal_logs_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    seconds = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress, "monotonic", lambda: float(next(seconds)))
    with caplog.at_level(logging.INFO):
        run(7)
    assert caplog.messages == [
        "reading: 3/7 after 30 s",
        "reading: 6/7 after 60 s, loss 5",
        "reading: 7/7 after 80 s, loss 6",
    ]
