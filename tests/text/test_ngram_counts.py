"""Are runs of words counted as by hand, and in the order of the text?"""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.core.errors import DataError
from snowmelt.text.ngram_counts import count_ngrams, split_words

texts = st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=8)


@given(texts, st.integers(1, 4))
def test_against_counters(text: list[list[str]], order: int) -> None:
    counts = count_ngrams([" ".join(sentence) for sentence in text], order)
    sentences = [["<s>", *sentence, "</s>"] for sentence in text]
    assert len(counts.orders) == order
    for length, counted in enumerate(counts.orders, start=1):
        expected: Counter[tuple[str, ...]] = Counter()
        left: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for sentence in sentences:
            for begin in range(len(sentence) - length + 1):
                run = tuple(sentence[begin : begin + length])
                expected[run] += 1
                left[run] |= set(sentence[begin - 1 : begin]) if begin else set()
        runs = [tuple(counts.words[i] for i in row) for row in counted.ids.tolist()]
        assert dict(zip(runs, counted.counts.tolist(), strict=True)) == dict(expected)
        # Grouped by history, both in the order of the text (that of a Counter's keys).
        histories = list(dict.fromkeys(run[:-1] for run in expected))
        assert runs == sorted(expected, key=lambda run: histories.index(run[:-1]))
        if length < order:
            assert counted.left_contexts.tolist() == [len(left[run]) for run in runs]
        if length > 1:
            below = counts.orders[length - 2].ids
            assert below[counted.histories].tolist() == counted.ids[:, :-1].tolist()
            assert below[counted.suffixes].tolist() == counted.ids[:, 1:].tolist()


def test_lines() -> None:
    # Only blanks and tabs separate; a no-break space belongs to its word.
    assert split_words(" a\tb  c\u00a0d \r\n") == ["a", "b", "c\u00a0d"]
    assert count_ngrams(["", " \t"], 2).orders[1].counts.tolist() == [2]


def test_what_cannot_be_counted() -> None:
    with pytest.raises(DataError, match="there is no text"):
        count_ngrams([], 3)
    with pytest.raises(DataError, match="order of an n-gram model must be 1 or more, got 0"):
        count_ngrams(["a"], 0)
    for sentence in ("a <s> b", "a </s>"):
        with pytest.raises(DataError, match="sentence 2 holds <s> or </s>"):
            count_ngrams(["a", sentence], 2)
