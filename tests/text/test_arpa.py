"""Is an ARPA file read as it is, and a damaged one refused in one line?"""

import gzip
from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.arpa import ArpaModel, NgramTable, read_arpa, write_arpa

TEXT = """made by hand

\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-99\t<s>\t-0.3
-0.5\ta\t-0.2
-0.6 b -0.1
-0.7\t</s>

\\2-grams:
-0.1\t<s> a
-0.2\ta b
-0.3\tb </s>

\\end\\
"""


def test_read_plain_and_packed(tmp_path: Path) -> None:
    (tmp_path / "plain.arpa").write_text(TEXT, encoding="utf-8")
    (tmp_path / "packed.arpa.gz").write_bytes(gzip.compress(TEXT.encode("utf-8")))
    for name in ("plain.arpa", "packed.arpa.gz"):
        model = read_arpa(tmp_path / name)
        assert (list(model.words), model.order) == (["<s>", "a", "b", "</s>"], 2)
        unigrams, bigrams = model.tables
        assert unigrams.ids.tolist() == [[0], [1], [2], [3]]
        assert bigrams.ids.tolist() == [[0, 1], [1, 2], [2, 3]]
        assert bigrams.log10_probs.tolist() == [-0.1, -0.2, -0.3]
        np.testing.assert_array_equal(unigrams.log10_backoffs, [-0.3, -0.2, -0.1, np.nan])
        assert np.isnan(bigrams.log10_backoffs).all()


def test_written_and_read(tmp_path: Path) -> None:
    (tmp_path / "a.arpa").write_text(TEXT, encoding="utf-8")
    model = read_arpa(tmp_path / "a.arpa")
    write_arpa(tmp_path / "b.arpa", model)
    lines = (tmp_path / "b.arpa").read_text(encoding="utf-8").split("\n")
    assert lines[:2] == ["\\data\\", "ngram 1=4"]
    assert lines[4:8] == [
        "\\1-grams:",
        "-99.0000000\t<s>\t-0.3000000",
        "-0.5000000\ta\t-0.2000000",
        "-0.6000000\tb\t-0.1000000",
    ]
    assert lines[8] == "-0.7000000\t</s>"
    assert lines[-3:] == ["", "\\end\\", ""]
    again = read_arpa(tmp_path / "b.arpa")
    assert again.words == model.words
    for one, other in zip(again.tables, model.tables, strict=True):
        for name in ("ids", "log10_probs", "log10_backoffs"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_rows() -> None:
    def table(*rows: list[int]) -> NgramTable:
        ids = np.array(rows, dtype=np.int32)
        return NgramTable(ids, np.zeros(len(ids)), np.zeros(len(ids)))

    # (0, 2, 1) has no beginning (0, 2): nothing reaches it.
    model = ArpaModel(
        ["a", "b", "c"],
        [table([2], [0], [1]), table([1, 0], [0, 1]), table([0, 1, 2], [0, 2, 1])],
    )

    def rows(*ids: list[int]) -> list[int]:
        return model.rows(np.array(ids, dtype=np.int32)).tolist()

    assert rows([0], [1], [2]) == [1, 2, 0]
    assert rows([0, 1], [1, 0], [1, 1], [2, 2]) == [1, 0, -1, -1]
    assert rows([0, 1, 2], [0, 2, 1], [1, 0, 0]) == [0, -1, -1]
    twice = ArpaModel(["a"], [table([0]), table([0, 0], [0, 0])])
    with pytest.raises(DataError, match="lists the 2-gram 'a a' twice"):
        twice.rows(np.zeros((1, 1), dtype=np.int32))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "\\date\\", r"has no line \\data\\"),
        ("ngram 1=4", "ngram 2=4", "line 4 is 'ngram 2=4': expected 'ngram 1='"),
        ("ngram 1=4", "ngram 1=x", "expected 'ngram 1=' and a count"),
        ("ngram 1=4", "ngram 1=0", "there are no 1-grams"),
        ("ngram 2=3", "ngram 2=4", "there are 3 2-grams, the head of the file says 4"),
        ("\\1-grams:", "\\2-grams:", r"expected \\1-grams:"),
        ("-0.2\ta b", "-0.2\ta", "line 15 is .*: expected a number, 2 words"),
        ("-0.2\ta b", "x\ta b", "line 15 .*: expected a number"),
        ("-0.2\ta b", "nan\ta b", "a 2-gram above has no finite probability"),
        ("\\end\\", "", r"line .* is 'the end of the file': expected \\end\\: is the file cut off"),
    ],
)
def test_malformed_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "a.arpa").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_arpa(tmp_path / "a.arpa")
    assert "\n" not in str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.arpa.gz"
    with pytest.raises(DataError, match=r"a\.arpa\.gz does not exist"):
        read_arpa(path)
    packed = gzip.compress(TEXT.encode("utf-8"))
    for content in (packed[:-30], packed[:20] + b"xxxx" + packed[24:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.arpa\.gz is damaged"):
            read_arpa(path)
    path.write_bytes(TEXT.encode("utf-8").replace(b"a b", b"\xff b"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_arpa(path)
