"""Is every word spelled, marked where it must be, and is a bad lexicon refused in one line?"""

import logging
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.core.errors import DataError
from snowmelt.text.lexicon import (
    add_disambiguation,
    disambiguated_tokens,
    phone_table,
    read_lexicon,
    spell_text,
    spell_words,
    validate_lexicon,
    with_noise_entries,
    write_lexicon,
)
from snowmelt.text.symbols import word_table
from snowmelt.text.tokenizer import build_chars, build_words, train_bpe
from tests.text.small_language import table_of

SENTENCES = ["THE CAT SAT ON THE MAT", "A CAT AND A DOG", "THE DOG RAN", "MATS AND CATS"] * 5
BPE = train_bpe(SENTENCES, 22)


def test_spelled_by_the_vocabulary() -> None:
    words = word_table(["!SIL", "<SPOKEN_NOISE>", "<UNK>", "CAT", "CATS", "DÖG"])
    lexicon = dict(spell_words(words, BPE))
    assert list(lexicon) == ["CAT", "CATS", "DÖG", "<UNK>"]
    for word in ("CAT", "CATS"):
        assert "".join(lexicon[word]) == "▁" + word
    # Through ids: what the vocabulary lacks is <unk>, not its own letters.
    assert lexicon["DÖG"] == tuple(BPE.id_to_token[i] for i in BPE.encode("DÖG"))
    assert "<unk>" in lexicon["DÖG"]
    assert lexicon["<UNK>"] == ("▁", "<unk>")
    validate_lexicon(list(lexicon.items()), BPE.id_to_token)


def test_vocabularies_of_words_and_characters() -> None:
    words = build_words(SENTENCES)
    assert spell_words(word_table(["CAT"]), words) == [("CAT", ("▁CAT",)), ("<UNK>", ("<unk>",))]
    with pytest.raises(DataError, match="needs tokens that begin a word"):
        spell_words(word_table(["CAT"]), build_chars(SENTENCES))


def test_words_that_cannot_be_spelled(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="the word '▁' of the word table has no spelling"):
        spell_words(word_table(["▁"]), BPE)
    with caplog.at_level(logging.WARNING):
        spell_words(word_table(["cat", "dog", "THE"]), BPE)
    assert "2 of 3 words have letters that the vocabulary lacks" in caplog.text
    with pytest.raises(DataError, match="spells 'DOG' with 'X', which is no token"):
        validate_lexicon([("A", ["▁A"]), ("DOG", ["▁", "X"])], [*BPE.id_to_token, "▁A"])


def test_texts_in_tokens() -> None:
    lexicon = [("A", ("a",)), ("A", ("e", "i")), ("BE", ("b", "i")), ("<UNK>", ("?", "!"))]
    assert list(spell_text(["A BE", "", "C A\n"], lexicon)) == ["a b i", "", "? ! a"]
    with pytest.raises(DataError, match="has no entry of <UNK>"):
        list(spell_text(["A"], lexicon[:2]))


def test_disambiguation_of_an_example() -> None:
    lexicon = [
        ("TO", ["t"]),
        ("TOO", ["t"]),
        ("TEA", ["t", "i"]),
        ("TO", ["t"]),
        ("TEASE", ["t", "i", "z"]),
    ]
    disambiguated, largest = add_disambiguation(lexicon)
    assert [spelling for _, spelling in disambiguated] == [
        ("t", "#1"),
        ("t", "#2"),
        ("t", "i", "#1"),
        ("t", "#3"),
        ("t", "i", "z"),
    ]
    assert largest == 3
    assert add_disambiguation([("A", ["a"])]) == ([("A", ("a",))], 0)


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), min_size=1, max_size=12))
def test_no_spelling_begins_another(spellings: list[list[str]]) -> None:
    lexicon = [(f"W{i}", spelling) for i, spelling in enumerate(spellings)]
    disambiguated, largest = add_disambiguation(lexicon)
    for (_, one), (_, other) in permutations(disambiguated, 2):
        assert tuple(one) != tuple(other[: len(one)])
    numbers = [int(s[-1][1:]) for _, s in disambiguated if s[-1].startswith("#")]
    assert largest == max(numbers, default=0)
    for (_, plain), (_, marked) in zip(lexicon, disambiguated, strict=True):
        assert [token for token in marked if not token.startswith("#")] == plain


def test_token_tables() -> None:
    table = disambiguated_tokens(["<blk>", "<sos/eos>", "<unk>", "▁A"], 2)
    assert [table.symbol(i) for i in range(4, 7)] == ["#0", "#1", "#2"]
    phones = phone_table([("A", ("b", "a", "#1")), ("B", ("B",))][1:], 0)
    assert list(phones) == ["<eps>", "B", "#0"]
    assert list(table_of("x")) == ["x"]


def test_noise_comes_with_phones() -> None:
    lexicon = with_noise_entries([("B", ("b",)), ("'A", ("a",)), ("B", ("b",)), ("é", ("e",))])
    assert [word for word, _ in lexicon] == ["!SIL", "'A", "<SPOKEN_NOISE>", "<UNK>", "B", "é"]


def test_written_and_read(tmp_path: Path) -> None:
    lexicon = [("A", ("a",)), ("A", ("e", "i")), ("É", ("▁É", "x"))]
    write_lexicon(tmp_path / "lexicon.txt", lexicon)
    assert (tmp_path / "lexicon.txt").read_text(encoding="utf-8") == "A a\nA e i\nÉ ▁É x\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == lexicon
    (tmp_path / "lexicon.txt").write_text("A\ta  b\n\n", encoding="utf-8")
    assert read_lexicon(tmp_path / "lexicon.txt") == [("A", ("a", "b"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A a\nB\n", r"lexicon\.txt line 2: 'B' has no tokens"),
        ("<eps> a\n", "line 1: <eps> cannot be a word"),
        ("\n", "is empty"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "lexicon.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_lexicon(tmp_path / "lexicon.txt")
