"""Tokens with times become words: the tokenizer's text, one time and one confidence each."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.runtime.words import confidence, graph_words, timed_words, token_ends
from snowmelt.text.tokenizer import BpeTokenizer

_TOKENS = ["<blk>", "<sos/eos>", "<unk>", "▁", "▁THE", "▁CA", "T", "S"]


@given(st.lists(st.integers(3, len(_TOKENS) - 1)))
def test_words_are_the_text(ids):
    tokens = [_TOKENS[i] for i in ids]
    words = timed_words(tokens, [0.04 * i for i in range(len(ids))], [-0.1] * len(ids))
    assert " ".join(word.text for word in words) == BpeTokenizer(_TOKENS, None).decode(ids)
    assert all(word.confidence == pytest.approx(math.exp(-0.1)) for word in words)


def test_a_words_time_is_that_of_its_first_token():
    tokens = ["▁THE", "▁CA", "T", "S", "▁", "T", "▁", "▁CA"]
    times = [0.0, 0.2, 0.24, 0.32, 0.4, 0.44, 0.6, 0.64]
    words = timed_words(tokens, times, [0.0, -0.3, -0.6, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert [(w.text, w.start) for w in words] == [
        ("THE", 0.0),
        ("CATS", 0.2),
        ("T", 0.4),
        ("CA", 0.64),
    ]
    assert words[1].confidence == pytest.approx(math.exp(-0.3))


def test_a_word_ends_where_the_next_token_begins_or_soon_after_its_last():
    tokens = ["▁THE", "▁CA", "T", "▁", "S", "▁CA"]
    words = timed_words(tokens, [0.0, 0.2, 0.24, 0.32, 2.0, 3.0], [0.0] * 6)
    assert [(w.text, w.end) for w in words] == [
        ("THE", 0.2),
        ("CAT", 0.32),
        ("S", 2.32),
        ("CA", 3.32),
    ]


def test_bytes_are_spelled_in_a_word():
    tokens = ["▁ca", "f", "<0xC3>", "<0xA9>", "▁", "<0xE4>", "<0xB8>", "<0x96>", "▁", "<0xE4>"]
    words = timed_words(tokens, [0.1 * n for n in range(10)], [0.0] * 10)
    assert [word.text for word in words] == ["café", "世"]
    tokenizer = BpeTokenizer(["<blk>", "<sos/eos>", "<unk>", *dict.fromkeys(tokens)], None)
    ids = [tokenizer.id_to_token.index(token) for token in tokens]
    assert tokenizer.decode(ids) == "café 世"


def test_no_tokens_no_words():
    assert timed_words([], [], []) == ()


def test_words_of_a_graph_begin_with_their_first_piece():
    tokens, times = ["▁CA", "T", "S", "▁A"], [0.2, 0.24, 0.32, 1.0]
    logprobs = [-0.3, -0.6, 0.0, -1.0]
    # The graph could not tell CATS from CAT before the S.
    words = graph_words(["kats", "a"], [0.32, 1.0], tokens, times, logprobs)
    assert [word[:3] for word in words] == [("kats", 0.2, 0.64), ("a", 1.0, 1.32)]
    assert [word.confidence for word in words] == pytest.approx([math.exp(-0.3), math.exp(-1.0)])


def test_words_of_a_graph_of_sounds_begin_where_they_were_given():
    tokens, times = ["K", "AE", "T", "S", "AH", "Z"], [0.2, 0.24, 0.32, 0.4, 0.44, 2.0]
    logprobs = [-0.1] * 6
    words = graph_words(["CATS", "AS"], [0.24, 0.44], tokens, times, logprobs)
    assert [word[:3] for word in words] == [("CATS", 0.2, 0.44), ("AS", 0.44, 2.32)]
    together = graph_words(["CATS", "A", "S"], [0.2, 0.44, 0.44], tokens, times, logprobs)
    assert [word[:3] for word in together[1:]] == [("A", 0.44, 2.32), ("S", 0.44, 2.32)]
    # A step without a token.
    assert graph_words(["CATS"], [0.24], [], [], []) == (("CATS", 0.24, 0.24, 1.0),)
    assert graph_words([], [], tokens, times, logprobs) == ()


def test_a_token_lasts_until_the_next_and_never_long():
    assert token_ends([0.0, 0.04, 0.04, 1.0]) == (0.04, 0.04, 0.36, 1.32)
    assert token_ends([]) == ()


def test_confidence_is_that_of_the_middle():
    assert confidence([-0.2, -0.4]) == pytest.approx(math.exp(-0.3))
    assert confidence([]) == 1.0
