"""Is the model that of the original program, in every printed digit?"""

import logging
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.arpa import ArpaModel, write_arpa
from snowmelt.text.kneser_ney import estimate_kneser_ney

EXAMPLE = ["a b a", "b a", "a a b c", "c"]

# Written by the original program.
EXPECTED = """\\data\\
ngram 1=5
ngram 2=9
ngram 3=9

\\1-grams:
-99.0000000 <s> -0.0157943
-0.4771213 a -0.0157943
-0.6532125 b -0.3679768
-0.6532125 </s>
-0.6532125 c -0.7359536

\\2-grams:
-0.3679768 <s> a 0.3088553
-0.7481880 <s> b 0.2710668
-0.7481880 <s> c 0.7481880
-0.3679768 a b 0.6232493
-0.7481880 a </s>
-0.7481880 a a 0.1461280
-0.2430380 b a -0.3125098
-0.6232493 b c 0.7481880
-0.0669468 c </s>

\\3-grams:
-1.0000000 <s> a b
-1.0000000 <s> a a
-1.0000000 a b a
-1.0000000 a b c
-0.2218487 b a </s>
-0.6989700 <s> b a
-0.6989700 a a b
-0.6989700 b c </s>
-0.6989700 <s> c </s>

\\end\\
"""


def test_example_in_every_digit(tmp_path: Path) -> None:
    write_arpa(tmp_path / "3gram.arpa", estimate_kneser_ney(EXAMPLE, 3))
    written = (tmp_path / "3gram.arpa").read_text(encoding="utf-8")
    assert written.replace("\t", " ") == EXPECTED


def by_formulas(text: list[str], order: int) -> dict[tuple[str, ...], tuple[float, float | None]]:
    """Log10 probability and weight of every n-gram, from the formulas and dictionaries."""
    sentences = [["<s>", *line.split(), "</s>"] for line in text]
    counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
    before: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for sentence in sentences:
        for n in range(1, order + 1):
            for i in range(len(sentence) - n + 1):
                run = tuple(sentence[i : i + n])
                counts[n][run] += 1
                if n < order and i:
                    before[run].add(sentence[i - 1])
    following: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for n in range(1, order + 1):
        for run in counts[n]:
            following[run[:-1]].append(run[-1])
    discounts = [0.0, 0.0]
    for n in range(2, order + 1):
        n1, n2 = (sum(c == k for c in counts[n].values()) for k in (1, 2))
        discounts.append(max(0.1, n1) / (n1 + 2 * n2) if n1 + n2 else 0.5)

    def f(run: tuple[str, ...]) -> float:
        n, h = len(run), run[:-1]
        contexts = sum(len(before[(*h, u)]) for u in following[h])
        if n < order and contexts:
            return max(len(before[run]) - discounts[n], 0) / contexts
        return max(counts[n][run] - discounts[n], 0) / sum(counts[n][(*h, u)] for u in following[h])

    model = {}
    for n in range(1, order + 1):
        for run in counts[n]:
            weight = None
            if n < order and run[-1] != "</s>":
                lower = sum(f((*run[1:], u)) for u in following[run])
                if lower < 1 - 1e-12:
                    left = 1 - sum(f((*run, u)) for u in following[run])
                    weight = math.log10(left / (1 - lower))
            model[run] = (math.log10(max(f(run), 1e-99)), weight)
    return model


def as_dictionary(model: ArpaModel) -> dict[tuple[str, ...], tuple[float, float]]:
    return {
        tuple(model.words[i] for i in ids): (float(log10_prob), float(log10_backoff))
        for table in model.tables
        for ids, log10_prob, log10_backoff in zip(
            table.ids, table.log10_probs, table.log10_backoffs, strict=True
        )
    }


@pytest.mark.parametrize(("seed", "order"), [(0, 2), (1, 2), (2, 3), (3, 4), (4, 5)])
def test_random_texts_against_the_formulas(seed: int, order: int) -> None:
    rng = random.Random(seed)
    text = [" ".join(rng.choices("abcdef", range(1, 7), k=rng.randint(0, 7))) for _ in range(40)]
    model, expected = as_dictionary(estimate_kneser_ney(text, order)), by_formulas(text, order)
    assert model.keys() == expected.keys()
    for ngram, (log10_prob, weight) in expected.items():
        assert model[ngram][0] == pytest.approx(log10_prob, abs=5e-9), ngram
        if weight is None:
            assert math.isnan(model[ngram][1]), ngram
        else:
            assert model[ngram][1] == pytest.approx(weight, abs=5e-9), ngram


def test_unigrams_alone() -> None:
    model = as_dictionary(estimate_kneser_ney(["a a b", "a"], 1))
    # The whole line counts, and <s> follows nothing.
    assert 10 ** model[("a",)][0] == pytest.approx(3 / 6)
    assert sum(10**p for p, _ in model.values()) == pytest.approx(1.0)


def test_texts_too_small_for_discounts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = as_dictionary(estimate_kneser_ney(["a b"] * 3, 2))
    assert "no 2-gram occurs once or twice" in caplog.text
    assert 10 ** model[("a", "b")][0] == pytest.approx(2.5 / 3)
    with pytest.raises(DataError, match="there is no text"):
        estimate_kneser_ney([], 2)
