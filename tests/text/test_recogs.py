"""recogs files: those of `save_results`, those of the original, and no others."""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.recogs import read_recogs
from snowmelt.text.wer import save_results

_ORIGINAL = Path(__file__).parent.parent / "golden" / "wer" / "small"


def test_what_was_written_is_read(tmp_path):
    rows = [
        ("u1", ["A", "IT'S", 'SAY "X"'], ["A", "É", "\\n"]),
        ("a:\tref=['B']", ["B"], []),
        ("u 3", [], ["'"]),
    ]
    save_results({"greedy_search": rows}, "test", "x", tmp_path)
    assert read_recogs(tmp_path / "recogs-test-x.txt") == sorted(rows)


def test_files_of_the_original():
    for path in _ORIGINAL.glob("recogs-*"):
        rows = read_recogs(path)
        text = "".join(f"{i}:\tref={ref}\n{i}:\thyp={hyp}\n" for i, ref, hyp in rows)
        assert rows and text == path.read_text()


def test_times_of_the_original_are_passed_over(tmp_path):
    path = tmp_path / "recogs.txt"
    path.write_text(
        "u1:\tref=['A']\nu1:\thyp=['B']\nu1:\ttimestamp_ref=[0.120]\nu1:\ttimestamp_hyp=[0.080]\n"
    )
    assert read_recogs(path) == [("u1", ["A"], ["B"])]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("u1 A B\n", "line 1 is 'u1 A B'"),
        ("u1:\tref=['A']\n", "u1 has not both ref and hyp"),
        ("u1:\thyp=['A']\n", "u1 has not both ref and hyp"),
        ("u1:\tref=['A']\nu1:\tref=['A']\n", "line 2 has ref of u1 for the second time"),
        ("u1:\tref=['A']\nu1:\thyp=[print('x')]\n", "line 2 holds no list of words"),
        ("u1:\tref=['A']\nu1:\thyp=[1]\n", "line 2 holds no list of words"),
        ("u1:\tref=['A']\nu1:\thyp=['A]\n", "line 2 holds no list of words"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_other_files_are_refused(tmp_path, text, reason, capsys):
    path = tmp_path / "recogs.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="is no recogs file") as error:
        read_recogs(path)
    assert reason in str(error.value) and capsys.readouterr().out == ""


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_recogs(tmp_path / "recogs.txt")
