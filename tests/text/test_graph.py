"""Decoding graphs: kept, refused, read."""

from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.graph import (
    DecodingGraph,
    graph_from_k2_arcs,
    read_fst_text,
    trivial_graph,
)


def small_graph() -> DecodingGraph:
    """Tokens 2 3 make word 7, token 4 words 5 6; epsilon leads back."""
    return graph_from_k2_arcs(
        np.array([[0, 1, 2], [0, 0, 4], [0, 2, -1], [1, 0, 3], [1, 0, 0], [1, 2, -1]]),
        np.array([-0.5, -1.0, -0.25, -2.0, -3.0, -4.0], dtype=np.float32),
        np.array([0, 1, 3, 4, 4, 5, 5]),
        np.array([7, 5, 6, -1, 0]),
    )


def arrays(graph: DecodingGraph) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in vars(graph).items()}


def test_k2_arcs_into_the_last_state_become_final_scores() -> None:
    graph = small_graph()
    assert graph.num_states == 2 and graph.num_arcs == 4
    assert graph.labels.tolist() == [2, 4, 3, 0]
    assert graph.row_splits.tolist() == [0, 2, 4]
    assert graph.final_scores.tolist() == [-0.25, -4.0]
    assert graph.words.tolist() == [7, 5, 6] and graph.word_splits.tolist() == [0, 1, 3, 3, 3]
    assert graph.has_epsilons and graph.has_words
    assert not trivial_graph(5).has_epsilons and not trivial_graph(5).has_words


def test_k2_arcs_may_come_in_any_order() -> None:
    arcs = np.array([[1, 2, -1], [1, 0, 3], [0, 1, 2]])
    graph = graph_from_k2_arcs(arcs, np.array([-1.0, -2.0, -3.0], dtype=np.float32))
    assert graph.labels.tolist() == [2, 3] and graph.scores.tolist() == [-3.0, -2.0]


def test_k2_arcs_of_another_form_are_refused() -> None:
    with pytest.raises(DataError, match="must lead into the last state"):
        graph_from_k2_arcs(np.array([[0, 1, 2]]), np.zeros(1, dtype=np.float32))


def test_scaling_leaves_closed_states_closed() -> None:
    graph = graph_from_k2_arcs(
        np.array([[0, 1, 2], [1, 2, -1]]), np.array([-2.0, -4.0], dtype=np.float32)
    )
    assert graph.with_scale(0.5).scores.tolist() == [-1.0]
    for scale in (0.5, 0.0, -1.0):
        assert graph.with_scale(scale).final_scores.tolist() == [-np.inf, -4.0 * scale]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("<eps> 0\n")
    small_graph().save(tmp_path / "LG.npz", made_from=[words])
    loaded = DecodingGraph.load(tmp_path / "LG.npz", made_from=[words])
    assert arrays(loaded) == arrays(small_graph())


def test_a_graph_of_other_words_is_refused(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("<eps> 0\n")
    small_graph().save(tmp_path / "LG.npz", made_from=[words])
    words.write_text("<eps> 0\nA 1\n")
    with pytest.raises(DataError, match=r"was made with another words\.txt"):
        DecodingGraph.load(tmp_path / "LG.npz", made_from=[words])
    # A file that the graph does not know of is nothing to compare with.
    DecodingGraph.load(tmp_path / "LG.npz", made_from=[tmp_path / "bpe.model"])


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        DecodingGraph.load(tmp_path / "missing.npz")
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(DataError, match="not a decoding graph"):
        DecodingGraph.load(text)
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    with pytest.raises(DataError, match="not a decoding graph"):
        DecodingGraph.load(other)
    whole = tmp_path / "whole.npz"
    small_graph().save(whole)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DataError, match="damaged"):
        DecodingGraph.load(cut)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dst": np.array([0, 5, 0, 0])}, "leads to a state that is none of the 2"),
        ({"labels": np.array([1, -1, 2, 3])}, "label -1"),
        ({"row_splits": np.array([0, 5, 4])}, "goes down"),
        ({"scores": np.array([0.0, np.nan, 0.0, 0.0])}, "not a number"),
        ({"final_scores": np.array([np.inf, 0.0])}, "not a number"),
        ({"words": np.array([1])}, "word_splits must have"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DecodingGraph(**{**vars(small_graph()), **change})


def test_openfst_text_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "g.fst.txt"
    path.write_text("2 0 3 7 0.5\n0 2 4 0\n2 1 5 6 Infinity\n0 1.5\n\n2\n")
    graph = read_fst_text(path)
    # State 2 is where the first line starts: it is 0 now, and 0 is 2.
    assert graph.num_states == 3
    assert graph.row_splits.tolist() == [0, 1, 1, 2]
    assert graph.dst.tolist() == [2, 0]
    assert graph.labels.tolist() == [3, 4]
    assert graph.scores.tolist() == [-0.5, 0.0]
    assert graph.words.tolist() == [7]
    assert graph.final_scores.tolist() == [0.0, -np.inf, -1.5]


def test_openfst_text_of_symbols(tmp_path: Path) -> None:
    path = tmp_path / "g.fst.txt"
    path.write_text("0 1 ▁A THE\n1 0 <eps> <eps>\n1\n", encoding="utf-8")
    graph = read_fst_text(path, token_to_id={"<blk>": 0, "▁A": 3}, word_to_id={"THE": 9})
    assert graph.labels.tolist() == [3, 0] and graph.words.tolist() == [9]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("0 1 2\n", "line 1: 3 fields"),
        ("0 1 2 2 x\n", "line 1: 'x' is not a cost"),
        ("0 1 2 2\na\n", "line 2: 'a' is not the number of a state"),
        ("0 1 2 2\n0 1 A 2\n", "line 2: 'A' is not a token id"),
        ("0 1 2 B\n", "line 1: the word 'B' is not in the list"),
    ],
)
def test_openfst_text_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "g.fst.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_fst_text(path, word_to_id={"A": 1})
