"""Which files do the options of the graph searches name?"""

import argparse
from pathlib import Path

import pytest

from snowmelt.cli.recognition_options import add_search_options, search_method, search_options
from snowmelt.core.errors import UserError
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.text.graph import read_fst_text
from snowmelt.text.tokenizer import build_chars


def search_of(*arguments: str) -> FastBeamSearch:
    parser = argparse.ArgumentParser()
    add_search_options(parser)
    args = parser.parse_args(arguments)
    search = search_method(args, search_options(args), build_chars(["AB"]))
    assert isinstance(search, FastBeamSearch)
    return search


def test_a_graph_comes_from_a_file_or_from_the_language(tmp_path: Path) -> None:
    text = tmp_path / "g.fst.txt"
    text.write_text("0 0 3 7 2.0\n0 1.0\n")
    search = search_of("--decoding-method", "fast_beam_search", "--graph", str(text))
    assert search.graph is not None and search.graph.scores.tolist() == [-2.0]
    (tmp_path / "words.txt").write_text("<eps> 0\n")
    made_from = [tmp_path / "words.txt"]
    read_fst_text(text).save(tmp_path / "LG.npz", made_from=made_from)
    method = ("--decoding-method", "fast_beam_search_LG", "--ngram-lm-scale", "0.5")
    search = search_of(*method, "--lang-dir", str(tmp_path))
    assert search.graph is not None and search.graph.scores.tolist() == [-1.0]
    made_from[0].write_text("<eps> 0\nA 1\n")
    with pytest.raises(UserError, match=r"another words\.txt"):
        search_of(*method, "--lang-dir", str(tmp_path))


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    method = ("--decoding-method", "fast_beam_search_LG")
    with pytest.raises(UserError, match="needs a graph with words"):
        search_of(*method)
    with pytest.raises(UserError, match=r"LG\.npz does not exist"):
        search_of(*method, "--lang-dir", str(tmp_path))
