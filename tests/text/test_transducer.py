"""Does a transducer survive its text form?"""

from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.transducer import Transducer, transducer_from_arcs

TEXT = """
2 0 5 6 0.25
2 1 5 0
0 2 3 3 -1.5
1 0.125
2
"""


def test_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "G.fst.txt").write_text(TEXT, encoding="ascii")
    fst = Transducer.read_text(tmp_path / "G.fst.txt")
    assert (fst.start, fst.num_states, fst.num_arcs) == (2, 3, 3)
    assert fst.row_splits.tolist() == [0, 1, 1, 3]
    assert fst.src.tolist() == [0, 2, 2]
    assert fst.dst.tolist() == [2, 0, 1]
    assert fst.ilabels.tolist() == [3, 5, 5]
    assert fst.olabels.tolist() == [3, 6, 0]
    assert fst.scores.tolist() == [1.5, -0.25, 0.0]
    assert fst.final_scores.tolist() == [-np.inf, -0.125, 0.0]
    fst.write_text(tmp_path / "again.fst.txt")
    # The start comes first; zero costs are left out.
    assert (tmp_path / "again.fst.txt").read_text(encoding="ascii").split("\n") == [
        "2\t0\t5\t6\t0.25",
        "2\t1\t5\t0",
        "2",
        "0\t2\t3\t3\t-1.5",
        "1\t0.125",
        "",
    ]


def test_six_digits(tmp_path: Path) -> None:
    scores = -np.array([2.302585093, 123456.789])
    fst = transducer_from_arcs(
        0, *np.array([[0, 0], [0, 0], [1, 2], [1, 2]]), scores, np.array([0.0])
    )
    fst.write_text(tmp_path / "G.fst.txt")
    lines = (tmp_path / "G.fst.txt").read_text(encoding="ascii").splitlines()
    assert [line.split("\t")[-1] for line in lines] == ["2.30259", "123457", "0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 1 2\n", r"grammar .*G\.fst\.txt line 1 is '0 1 2'"),
        ("0 1 1 1\n0 1 A A 0.5\n", "line 2 is '0 1 A A 0.5'"),
        ("0 1 1 1 0.5x\n", "line 1"),
        ("0 1 -1 1\n", "line 1"),
        ("0 99999999999 1 1\n", "line 1"),
        ("0 1 1 1 1 1\n", "line 1"),
        ("\n", "is empty"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "G.fst.txt").write_text(content, encoding="ascii")
    with pytest.raises(DataError, match=message):
        Transducer.read_text(tmp_path / "G.fst.txt")
