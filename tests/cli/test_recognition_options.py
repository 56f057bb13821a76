"""Which files do the options of the graph searches name?"""

import argparse
from pathlib import Path

import pytest

from snowmelt.cli.recognition_options import (
    LoadedSearch,
    add_search_options,
    load_search,
    search_options,
)
from snowmelt.core.errors import UserError
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.text.graph import read_fst_text
from snowmelt.text.tokenizer import build_chars


def loaded(*arguments: str) -> LoadedSearch:
    parser = argparse.ArgumentParser()
    add_search_options(parser)
    args = parser.parse_args(arguments)
    return load_search(args, search_options(args), build_chars(["AB"]))


def search_of(*arguments: str) -> FastBeamSearch:
    search = loaded(*arguments).method
    assert isinstance(search, FastBeamSearch)
    return search


def test_a_graph_comes_from_a_file_or_from_the_language(tmp_path: Path) -> None:
    text = tmp_path / "g.fst.txt"
    text.write_text("0 0 3 7 2.0\n0 1.0\n")
    (tmp_path / "words.txt").write_text("<eps> 0\nSEVEN 7\n")
    search = search_of("--decoding-method", "fast_beam_search", "--graph", str(text))
    assert search.graph is not None and search.graph.scores.tolist() == [-2.0]
    made_from = [tmp_path / "words.txt"]
    read_fst_text(text).save(tmp_path / "LG.npz", made_from=made_from)
    method = ("--decoding-method", "fast_beam_search_LG", "--ngram-lm-scale", "0.5")
    search = search_of(*method, "--lang-dir", str(tmp_path))
    assert search.graph is not None and search.graph.scores.tolist() == [-1.0]
    # As in the original: only the LG methods know the language.
    plain = ("--decoding-method", "fast_beam_search")
    assert search_of(*plain, "--lang-dir", str(tmp_path)).graph is None
    made_from[0].write_text("<eps> 0\nA 1\n")
    with pytest.raises(UserError, match=r"another words\.txt"):
        search_of(*method, "--lang-dir", str(tmp_path))


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    method = ("--decoding-method", "fast_beam_search_LG")
    with pytest.raises(UserError, match="needs a graph with words"):
        search_of(*method)
    with pytest.raises(UserError, match=r"LG\.npz does not exist"):
        search_of(*method, "--lang-dir", str(tmp_path))


def test_the_words_of_a_graph_come_with_it(tmp_path: Path) -> None:
    graph = tmp_path / "g.fst.txt"
    graph.write_text("0 0 3 2 2.0\n0 0 4 1 2.0\n0 1.0\n")
    method = ("--decoding-method", "fast_beam_search", "--graph", str(graph))
    with pytest.raises(UserError, match=r"their table .*words\.txt does not exist"):
        loaded(*method)
    (tmp_path / "words.txt").write_text("<eps> 0\nA 1\nB 2\nC 9\n")
    assert loaded(*method).word_table == ["", "A", "B"]
    lang_dir = tmp_path / "lang"
    lang_dir.mkdir()
    (lang_dir / "words.txt").write_text("<eps> 0\nX 1\nY 2\n")
    assert loaded(*method, "--lang-dir", str(lang_dir)).word_table == ["", "X", "Y"]
    (lang_dir / "words.txt").write_text("<eps> 0\nX 1\n")
    with pytest.raises(UserError, match="has no symbol of id 2"):
        loaded(*method, "--lang-dir", str(lang_dir))
    graph.write_text("0 0 3 2.0\n0 1.0\n")
    assert loaded("--decoding-method", "fast_beam_search").word_table is None
