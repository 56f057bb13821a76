"""Does the grammar have kaldilm's states and arcs, and leave out what it must?"""

import logging
import math
from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.arpa import read_arpa
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.symbols import SymbolTable
from snowmelt.text.transducer import Transducer
from tests.text.small_language import table_of

WORDS = table_of("<eps>", "a", "b", "#0", "<s>", "</s>")
UNIGRAMS = "-99 <s> -0.3\n-0.5 a -0.2\n-0.6 b -0.1\n-0.7 </s>\n"


def grammar(tmp_path: Path, *tables: str, words: SymbolTable = WORDS) -> Transducer:
    head = "".join(
        f"ngram {order}={len(table.splitlines())}\n" for order, table in enumerate(tables, 1)
    )
    body = "".join(f"\\{order}-grams:\n{table}\n" for order, table in enumerate(tables, 1))
    path = tmp_path / "lm.arpa"
    path.write_text(f"\\data\\\n{head}\n{body}\\end\\\n", encoding="utf-8")
    return grammar_from_arpa(read_arpa(path), words)


def lines(fst: Transducer, tmp_path: Path) -> list[str]:
    fst.write_text(tmp_path / "G.fst.txt")
    return (tmp_path / "G.fst.txt").read_text(encoding="ascii").replace("\t", " ").splitlines()


def test_example_of_kaldilm(tmp_path: Path) -> None:
    fst = grammar(tmp_path, UNIGRAMS, "-0.1 <s> a\n-0.2 a b\n-0.3 b </s>\n")
    assert lines(fst, tmp_path) == [
        "1 2 1 1 0.230259",
        "1 0 3 0 0.690776",
        "0 2 1 1 1.15129",
        "0 3 2 2 1.38155",
        "0 1.61181",
        "2 3 2 2 0.460517",
        "2 0 3 0 0.460517",
        "3 0 3 0 0.230259",
        "3 0.690776",
    ]


def test_histories_that_are_not_listed_are_made(tmp_path: Path) -> None:
    # The 3-gram `<s> a b` leads to the history `a b`, which the model lacks; `a b a` goes on there.
    trigrams = "-0.1 <s> a b\n-0.2 a b a\n-0.4 b b a\n"
    fst = grammar(tmp_path, UNIGRAMS, "-0.1 <s> a -0.05\n-0.3 b a\n", trigrams)
    # States: 0 empty, 1 <s>, 2 a, 3 b, 4 <s> a, 5 b a, 6 a b.
    assert fst.num_states == 7
    assert lines(fst, tmp_path)[-3:] == ["5 2 3 0", "6 5 1 1 0.460517", "6 3 3 0"]
    assert "4 6 2 2 0.230259" in lines(fst, tmp_path)
    # `b b` is no history, so `b b a` has no place.
    assert fst.num_arcs == sum([2, 2, 2, 2, 1, 1, 2])


def test_order_one(tmp_path: Path) -> None:
    fst = grammar(tmp_path, "-99 <s>\n-0.3 a\n-0.4 </s>\n")
    assert (fst.start, fst.num_states, fst.num_arcs) == (0, 1, 1)
    assert fst.final_scores[0] == pytest.approx(-0.4 * math.log(10))


def test_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = table_of("<eps>", "a", "#0")
    with caplog.at_level(logging.WARNING):
        fst = grammar(
            tmp_path, UNIGRAMS, "-0.1 <s> a\n-0.2 a b\n-0.3 a </s>\n-0.3 </s> a\n", words=words
        )
    assert "3 n-grams are left out" in caplog.text  # b; a b; </s> a
    assert lines(fst, tmp_path) == [
        "1 2 1 1 0.230259",
        "1 0 2 0 0.690776",
        "0 2 1 1 1.15129",
        "0 1.61181",
        "2 0 2 0 0.460517",
        "2 0.690776",
    ]


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no n-gram of the model can be used with this word table"):
        grammar(tmp_path, "-0.3 a\n-0.4 </s>\n", words=table_of("<eps>", "A", "#0"))
    with pytest.raises(DataError, match="has no symbol '#0'"):
        grammar(tmp_path, UNIGRAMS, words=table_of("<eps>", "a"))


def test_arcs_are_sorted_by_label(tmp_path: Path) -> None:
    words = table_of("<eps>", "b", "a", "#0")
    fst = grammar(tmp_path, UNIGRAMS, "-0.1 <s> a\n-0.2 a b\n-0.3 a a\n", words=words)
    for begin, end in zip(fst.row_splits[:-1], fst.row_splits[1:], strict=True):
        assert (np.diff(fst.ilabels[begin:end]) > 0).all()
