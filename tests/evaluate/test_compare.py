"""Two results side by side: counts, draws by speaker, the utterances that differ most."""

import pytest

from snowmelt.core.errors import DataError
from snowmelt.evaluate.compare import compare
from snowmelt.evaluate.results import SetResult


def _result(name, rows, speakers=None):
    split = [(i, ref.split(), hyp.split()) for i, ref, hyp in rows]
    return SetResult(name, split, speakers or {})


_A = _result("a", [("u1", "A B C", "A B C"), ("u2", "D E", "X Y"), ("u3", "F", "F G")])
_B = _result("b", [("u1", "A B C", "A B"), ("u2", "D E", "D E"), ("u3", "F", "F G")])


def test_counts_and_the_utterances_that_differ_most():
    found = compare(_A, _B)
    assert found.num_utterances == 3
    assert (found.stats_a.errors, found.stats_b.errors) == (3, 2)
    assert (found.num_better_a, found.num_better_b) == (1, 1)
    assert [row[:3] for row in found.differences] == [("u2", 2, 0), ("u1", 0, 1)]
    assert found.differences[0].hyp_a == ["X", "Y"]
    assert found.by_utterance.num_units == 3 and found.by_speaker is None
    assert found.pairs.num_segments == 3


def test_speakers_that_one_of_them_knows():
    known = {"u1": "ann", "u2": "bob", "u3": "ann"}
    found = compare(_A, _result("b", [(i, " ".join(r), " ".join(h)) for i, r, h in _B.rows], known))
    assert found.by_speaker is not None and found.by_speaker.num_units == 2
    # Draws of two speakers: both of one, or one of each; 1 of 4 words or 2 of 2 are wrong in A.
    assert found.by_speaker.wer_a == pytest.approx((25.0, 100.0))
    assert found.by_speaker.wer_b == pytest.approx((0.0, 50.0))
    alone = dict.fromkeys(known, "ann")
    assert compare(SetResult("a", _A.rows, alone), _B).by_speaker is None


def test_at_most_ten_utterances_are_named():
    rows = [(f"u{n:02}", "A", "A") for n in range(15)]
    worse = [(i, ref, "B") for i, ref, _ in rows]
    found = compare(_result("a", rows), _result("b", worse))
    assert [row.utterance_id for row in found.differences] == [f"u{n:02}" for n in range(10)]
    assert found.num_better_a == 15


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("u1", "A B C", "")], "a has 2 utterances that b lacks, such as u2"),
        (
            [(i, " ".join(r), "") for i, r, _ in _A.rows] + [("u4", "A", "A")],
            "b has 1 utterances that a lacks, such as u4",
        ),
        (
            [("u1", "A B C", ""), ("u2", "D F", ""), ("u3", "F", "")],
            "what was said in u2 is 'D E' in a and 'D F' in b",
        ),
    ],
)
def test_other_test_sets_are_refused(rows, reason):
    with pytest.raises(DataError) as error:
        compare(_A, _result("b", rows))
    assert reason in str(error.value)


def test_nothing_said_is_nothing_to_compare():
    silent = _result("a", [("u1", "", "A")])
    with pytest.raises(DataError, match="a holds no word"):
        compare(silent, silent)
