"""Hotword graphs: the original's values, the longest phrase wins, and nothing granted stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.search.context_graph import ContextGraph, build_context_graph

_PHRASES = ("S", "HE", "SHE", "SHELL", "HIS", "HERS", "HELLO", "THIS", "THEM")


def _ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def _graph(phrases, scores=None, rule="longest") -> ContextGraph:
    scores = scores or [1.0] * len(phrases)
    return build_context_graph([_ids(phrase) for phrase in phrases], scores, rule=rule)


def _total(graph: ContextGraph, text: str) -> float:
    state, total = 0, 0.0
    for token in _ids(text):
        score, state = graph.step(state, token)
        total += score
    return total + graph.final_score(state)


# Values of the original: strict, not strict.
@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("HEHERSHE", 14, 7),
        ("HERSHE", 12, 5),
        ("HISHE", 9, 5),
        ("SHED", 6, 3),
        ("SHELF", 6, 3),
        ("HELL", 2, 2),
        ("HELLO", 7, 2),
        ("DHRHISQ", 4, 3),
        ("THEN", 2, 2),
    ],
)
def test_one_bonus_for_all_is_the_originals(text, strict, loose):
    assert _total(_graph(_PHRASES, rule="icefall_strict"), text) == pytest.approx(strict)
    assert _total(_graph(_PHRASES, rule="icefall"), text) == pytest.approx(loose)


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("HEHERSHE", 35.84, 20),
        ("HERSHE", 30.84, 15),
        ("HISHE", 24.18, 10.84),
        ("SHED", 18.34, 10),
        ("SHELF", 18.34, 10),
        ("HELL", 5, 5),
        ("HELLO", 13, 5),
        ("DHRHISQ", 10.84, 5.84),
        ("THEN", 5, 5),
    ],
)
def test_a_bonus_a_phrase_is_the_originals(text, strict, loose):
    scores = [round(5 / len(phrase), 2) for phrase in _PHRASES]
    found = [_total(_graph(_PHRASES, scores, rule), text) for rule in ("icefall_strict", "icefall")]
    assert found == [pytest.approx(strict, abs=0.005), pytest.approx(loose, abs=0.005)]


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("HELLO", 5),  # not HE
        ("HELL", 2),  # HE, and nothing for LL
        ("HERSHE", 6),  # HERS, HE
        ("SHELLO", 5),  # SHELL
        ("SHELF", 3),  # SHE
        ("HISHE", 5),  # HIS, HE
        ("THEN", 2),  # THE is given up: HE was inside
        ("THEMHIS", 7),
        ("XYZ", 0),
    ],
)
def test_the_longest_phrase_wins(text, total):
    assert _total(_graph(_PHRASES), text) == pytest.approx(total)


def _leftmost_longest(phrases: dict[str, float], text: str) -> float:
    total, start = 0.0, 0
    while start < len(text):
        found = max((p for p in phrases if text.startswith(p, start)), key=len, default="")
        total += phrases.get(found, 0.0) * len(found)
        start += max(1, len(found))
    return total


_WORDS = st.text("ABC", min_size=1, max_size=5)


@given(phrases=st.sets(_WORDS, min_size=1, max_size=6), text=st.text("ABCD", max_size=14))
def test_the_total_is_that_of_reading_from_left_to_right(phrases, text):
    listed = sorted(phrases)
    expected = _leftmost_longest(dict.fromkeys(listed, 1.5), text)
    assert _total(_graph(listed, [1.5] * len(listed)), text) == pytest.approx(expected)


@given(
    phrases=st.dictionaries(_WORDS, st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=6),
    text=st.text("ABCD", max_size=14),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_phrases_does_not_matter(phrases, text, order):
    listed = sorted(phrases)
    expected = _total(_graph(listed, [phrases[p] for p in listed]), text)
    order.shuffle(listed)
    assert _total(_graph(listed, [phrases[p] for p in listed]), text) == pytest.approx(expected)
    # No bonus stays without a phrase.
    if not any(phrase in text for phrase in phrases):
        assert expected == pytest.approx(0)


def test_scores_of_shared_prefixes_are_renewed_but_stale_in_the_original():
    # AB is built with 1 a token; then ACD raises A to 5: AB is worth 5 + 1.
    assert _total(_graph(["AB", "AC"], [1.0, 5.0]), "AB") == pytest.approx(6)
    stale = _graph(["ABC", "AD"], [1.0, 5.0], "icefall")
    score, state = stale.step(0, ord("A"))
    assert score == 5
    score, state = stale.step(state, ord("B"))
    # Given up after AB: the original takes back 2, what AB was worth when it was built.
    assert stale.final_score(state) == -2


def test_a_match_is_known_by_its_length():
    graph = _graph(["HE", "SHELL"])
    state = 0
    lens = []
    for token in _ids("SHELL"):
        _, state = graph.step(state, token)
        lens.append(int(graph.matched_lens[state]))
    assert lens == [0, 0, 2, 0, 5]
    assert graph.num_nodes == 7


def test_no_phrases():
    assert _total(_graph([]), "ABC") == 0
