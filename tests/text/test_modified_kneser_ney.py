"""Is the model what the formulas give by hand, and do its probabilities sum to one?"""

import logging
import math

import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.modified_kneser_ney import estimate_modified_kneser_ney
from tests.text.small_language import SlowNgrams, random_sentences
from tests.text.test_kneser_ney import as_dictionary


def test_example_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    # 2-grams: <s> a 3 times; a b, b </s> twice; a c, c </s> once. n1 = n2 = 2, n3 = 1, n4 = 0, so
    # Y = 2/6 and the discounts are 1 - 2Y, 2 - 1.5Y, 3, that is 1/3, 1.5, 3.
    # Left contexts of 1-grams: a 1, b 1, c 1, </s> 2. n3 = 0: the discounts are 0.5, 1, 1.5; 2.5 of
    # 5 is left for the uniform distribution over a, b, c, </s>, <UNK>.
    with caplog.at_level(logging.WARNING):
        model = as_dictionary(estimate_modified_kneser_ney(["a b", "a b", "a c"], 2))
    assert caplog.text.count("too few") == 1
    expected = {
        ("a",): (0.1 + 0.1, 11 / 18),
        ("b",): (0.2, 1.5 / 2),
        ("c",): (0.2, 1 / 3),
        ("</s>",): (1 / 5 + 0.1, None),
        ("<UNK>",): (0.1, None),
        ("<s>", "a"): (0 + 1 * 0.2, None),
        ("a", "b"): (0.5 / 3 + 11 / 18 * 0.2, None),
        ("a", "c"): (2 / 9 + 11 / 18 * 0.2, None),
        ("b", "</s>"): (0.5 / 2 + 0.75 * 0.3, None),
        ("c", "</s>"): (2 / 3 + 1 / 3 * 0.3, None),
    }
    assert model[("<s>",)] == (-99.0, pytest.approx(0.0))
    assert model.keys() - {("<s>",)} == expected.keys()
    for ngram, (prob, weight) in expected.items():
        assert 10 ** model[ngram][0] == pytest.approx(prob), ngram
        assert weight is None or 10 ** model[ngram][1] == pytest.approx(weight), ngram


@pytest.mark.parametrize(("order", "vocabulary"), [(1, None), (2, ["A", "AT", "NEW"]), (3, None)])
def test_probabilities_sum_to_one(order: int, vocabulary: list[str] | None) -> None:
    model = estimate_modified_kneser_ney(random_sentences(3, 300), order, vocabulary)
    slow = SlowNgrams(model)
    assert "<UNK>" in model.words
    if vocabulary is not None:
        assert set(model.words) == {"<s>", "</s>", "<UNK>", *vocabulary}
    words = [word for word in model.words if word != "<s>"]
    for before in ([], ["<s>"], ["<s>", "A"], ["A", "AT"], ["<UNK>", "A"], ["A", "<UNK>"]):
        probs = [math.exp(slow.next(before, word)) for word in words]
        assert sum(probs) == pytest.approx(1.0, abs=1e-9), before
        assert min(probs) > 0


def test_discounts_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        estimate_modified_kneser_ney(random_sentences(3, 300), 3)
    assert "3-grams" not in caplog.text
    assert "1-grams" in caplog.text  # nine words are too few


def test_texts_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="there is no text"):
        estimate_modified_kneser_ney([], 3)
