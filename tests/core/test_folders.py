"""A folder appears whole or not at all."""

from pathlib import Path

import pytest

from snowmelt.core.errors import UserError
from snowmelt.core.folders import atomic_folder


def _content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_new_folder_and_one_that_is_replaced(tmp_path):
    path = tmp_path / "some" / "folder"
    for name in ("first", "second"):
        with atomic_folder(path) as new:
            (new / name).write_text(name)
            assert name not in (_content(path) if path.exists() else {})
        assert _content(path) == {name: name}
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_what_was_there_stays_on_an_error(tmp_path):
    path = tmp_path / "folder"
    with atomic_folder(path) as new:
        (new / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as new:
        (new / "half").write_text("half")
        raise KeyboardInterrupt
    assert _content(path) == {"old": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="it is a file"), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="cannot make"), atomic_folder(tmp_path / "file" / "inside"):
        pass
