"""Do log lines have the right form and go to the right places?"""

import logging
import re
import resource
import signal

import pytest

from snowmelt.core.log import setup_logging


@pytest.fixture(autouse=True)
def root_logger_as_before():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level


def test_line_on_stderr_and_in_the_file(tmp_path, capsys):
    path = tmp_path / "log" / "log-train"
    setup_logging(path)
    logging.getLogger("snowmelt.x").info("Training started")
    line = path.read_text()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO \[test_log\.py:\d+\] Training started\n", line
    )
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


def test_several_processes(tmp_path):
    setup_logging(tmp_path / "log-train", rank=1, world_size=2)
    logging.info("x")
    line = (tmp_path / "log-train-1").read_text()
    assert re.search(r"INFO \[test_log\.py:\d+\] \(1/2\) x\n$", line)


def test_second_call_replaces_the_first(tmp_path, capsys):
    setup_logging(tmp_path / "a")
    setup_logging(tmp_path / "b", level=logging.WARNING)
    logging.info("not written")
    logging.warning("once")
    assert (tmp_path / "a").read_text() == ""
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_is_said_once_and_does_not_stop_the_work(tmp_path, capsys):
    setup_logging(tmp_path / "log")
    # A limit on file sizes stands in for a full disk.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        for _ in range(3):
            logging.info("a line")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert f"snowmelt: the log ends here: {tmp_path / 'log'}: File too large" in lines
