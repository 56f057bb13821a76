"""Do tables survive their files, and do malformed ones say what is wrong?"""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.symbols import SymbolTable, word_table


def test_written_and_read(tmp_path: Path) -> None:
    table = word_table(["'TIS", "<UNK>", "!SIL", "ÉTÉ", "B", "#0", "</s>"])
    assert list(table)[:3] == ["<eps>", "!SIL", "'TIS"]
    assert list(table)[-3:] == ["#0", "<s>", "</s>"]
    table.write(tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text(encoding="utf-8").startswith("<eps> 0\n!SIL 1\n")
    again = SymbolTable.read(tmp_path / "words.txt")
    assert [(s, again[s]) for s in again] == [(s, table[s]) for s in table]
    assert [again.symbol(again[s]) for s in again] == list(table)


def test_what_is_not_there() -> None:
    table = SymbolTable({"<eps>": 0, "A": 7}, "words.txt")
    assert ("A" in table, "B" in table, table.get("B"), len(table)) == (True, False, None, 2)
    with pytest.raises(DataError, match=r"^words\.txt has no symbol 'B'$"):
        table["B"]
    with pytest.raises(DataError, match=r"^words\.txt has no symbol of id 3$"):
        table.symbol(3)
    assert table.with_symbols(["A", "#0", "<s>"])["<s>"] == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<eps> 0\nA\n", r"words\.txt line 2 is 'A'"),
        ("<eps> 0\nA B 1\n", "line 2 is 'A B 1'"),
        ("<eps> 0\nA -1\n", "line 2 is 'A -1'"),
        ("<eps> 0\nA 1\nA 2\n", "line 3 is 'A 2'"),
        ("<eps> 0\nA 1\nB 1\n", "gives 'A' and 'B' the same id"),
        ("A 0\n<eps> 1\n", "has <eps> at 1"),
    ],
)
def test_malformed_tables(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        SymbolTable.read(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"symbol table .*words\.txt does not exist"):
        SymbolTable.read(tmp_path / "words.txt")
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        SymbolTable.read(tmp_path / "words.txt")


@pytest.mark.parametrize("word", ["", "A B", " A"])
def test_words_with_white_space(word: str) -> None:
    with pytest.raises(DataError, match="is not one word"):
        word_table(["A", word])
