"""Does the lexicon's transducer spell exactly its entries?"""

import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.lexicon_fst import lexicon_to_transducer
from snowmelt.text.transducer import Transducer
from tests.text.small_language import table_of

TOKENS = table_of("<blk>", "a", "b", "#0", "#1")
WORDS = table_of("<eps>", "A", "AB", "#0", "<s>", "</s>")


def arcs(transducer: Transducer) -> list[tuple[int, ...]]:
    columns = (transducer.src, transducer.dst, transducer.ilabels, transducer.olabels)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_words_stand_on_their_first_arcs() -> None:
    lexicon = [("A", ["a", "#1"]), ("AB", ["a", "b", "a"]), ("A", ["b"])]
    transducer = lexicon_to_transducer(lexicon, TOKENS, WORDS, has_backoff_loop=True)
    assert arcs(transducer) == [
        (0, 1, 1, 1),
        (0, 2, 1, 2),
        (0, 0, 2, 1),
        (0, 0, 3, 3),
        (1, 0, 4, 0),
        (2, 3, 2, 0),
        (3, 0, 1, 0),
    ]
    assert transducer.start == 0
    assert transducer.final_scores.tolist() == [0.0] + [float("-inf")] * 3
    assert not transducer.scores.any()
    without = lexicon_to_transducer(lexicon, TOKENS, WORDS, has_backoff_loop=False)
    assert arcs(without) == [arc for arc in arcs(transducer) if arc != (0, 0, 3, 3)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("A", ["c"]), "has no symbol 'c'"),
        (("C", ["a"]), "has no symbol 'C'"),
        (("A", ["a", "<blk>"]), "spells 'A' with '<blk>'"),
    ],
)
def test_entries_that_do_not_fit(entry: tuple[str, list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        lexicon_to_transducer([entry], TOKENS, WORDS, has_backoff_loop=False)
