"""Do transducers arrive in kaldifst and come back as they were?"""

import kaldifst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.text.openfst import from_openfst, to_openfst
from snowmelt.text.transducer import Transducer, transducer_from_arcs

FIELDS = ("row_splits", "dst", "ilabels", "olabels", "scores", "final_scores")


@st.composite
def transducers(draw: st.DrawFn) -> Transducer:
    num_states = draw(st.integers(1, 5))
    states = st.integers(0, num_states - 1)
    labels = st.integers(0, 70_000)
    scores = st.floats(-50, 50, width=32)
    arcs = draw(st.lists(st.tuples(states, states, labels, labels, scores), max_size=12))
    columns = np.array(arcs, dtype=np.float64).reshape(-1, 5).T
    finals = draw(st.lists(scores | st.just(-np.inf), min_size=num_states, max_size=num_states))
    return transducer_from_arcs(
        draw(states), *columns[:4].astype(np.int64), columns[4], np.array(finals)
    )


@given(transducers())
def test_there_and_back(transducer: Transducer) -> None:
    back = from_openfst(to_openfst(transducer))
    assert back.start == transducer.start
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(back, name), getattr(transducer, name))
        assert getattr(back, name).dtype == getattr(transducer, name).dtype


def test_what_kaldifst_sees() -> None:
    fst = to_openfst(
        transducer_from_arcs(
            1,
            *np.array([[1, 0], [0, 1], [5, 0], [0, 7]]),
            np.array([-0.25, 1.5]),
            np.array([-np.inf, -2.0]),
        )
    )
    assert (fst.start, fst.num_states, fst.num_arcs(0), fst.num_arcs(1)) == (1, 2, 1, 1)
    assert (fst.num_input_epsilons(0), fst.num_input_epsilons(1)) == (1, 0)
    assert [line.split() for line in fst.to_str().splitlines()] == [
        ["1", "0", "5", "0", "0.25"],
        ["1", "2"],
        ["0", "1", "0", "7", "-1.5"],
    ]
    # And what its own arcs look like here.
    built = kaldifst.StdVectorFst()
    for _ in range(2):
        built.add_state()
    built.start = 1
    built.add_arc(1, kaldifst.StdArc(3, 4, 0.5, 0))
    built.set_final(0, 2.5)
    ours = from_openfst(built)
    assert (ours.start, ours.dst.tolist(), ours.ilabels.tolist()) == (1, [0], [3])
    assert ours.scores.tolist() == [-0.5]
    assert ours.final_scores.tolist() == [pytest.approx(-2.5), -np.inf]
