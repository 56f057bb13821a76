"""What these tests leave out: waiting for the disk."""

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # It guards against a loss of power, which no test causes; a busy disk takes seconds a file.
    monkeypatch.setattr("snowmelt.core.files._fsync", lambda path: None)
    monkeypatch.setattr("os.sync", lambda: None)
