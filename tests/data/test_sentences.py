"""Text as batches: whole sentences, long ones in pieces, one side for every sentence."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.sentences import Sentences, encode_sentences, read_sentences, split_off_dev
from snowmelt.text.tokenizer import build_chars, build_words

WORDS = build_words(["A B C D"])  # ids 3 to 6


def _encoded(*sentences: str, max_len: int = 100) -> Sentences:
    return encode_sentences(sentences, WORDS, max_len=max_len, name="the text")


def test_a_sentence_is_read_from_its_beginning_to_its_end() -> None:
    batch = _encoded("A C", "D").batch([0, 1])
    assert batch.inputs.tolist() == [[1, 3, 5], [1, 6, 0]]
    assert batch.targets.tolist() == [[3, 5, 1], [6, 1, 0]]
    # Ends count as words, as in the perplexities of n-gram models.
    assert batch.num_words == 5


def test_pieces_of_a_long_sentence_go_on_where_the_last_one_ended() -> None:
    sentences = _encoded("A B C D A", "B", max_len=2)
    pieces = [sentences.batch([i]) for i in range(len(sentences))]
    assert [piece.inputs.tolist() for piece in pieces] == [
        [[1, 3]],
        [[4, 5]],
        [[6, 3]],
        [[1, 4]],
    ]
    assert [piece.targets.tolist() for piece in pieces] == [
        [[3, 4]],
        [[5, 6]],
        [[3, 1]],
        [[4, 1]],
    ]
    assert sum(piece.num_words for piece in pieces) == 5 + 1 + 1 + 1


def test_words_of_characters_are_counted() -> None:
    chars = build_chars(["AB C"])
    sentences = encode_sentences(["AB C AB"], chars, max_len=100, name="the text")
    assert sentences.num_words.tolist() == [4]


def test_unknown_words_are_counted() -> None:
    sentences = _encoded("A X B Y")
    assert sentences.num_unknown == 2 and sentences.num_words.tolist() == [5]


def test_batches_are_limited_and_complete() -> None:
    sentences = _encoded(*["A " * n for n in range(1, 12)])
    sampler = sentences.sampler(20, seed=3)
    first, second = sampler.batches(1), sampler.batches(2)
    assert first != second and first == sentences.sampler(20, seed=3).batches(1)
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch) == list(range(11))
        assert all(sentences.batch(batch).inputs.size <= 20 for batch in batches)


def test_files_may_be_packed(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    plain.write_text("A B\n\n  C \n", encoding="utf-8")
    packed.write_bytes(gzip.compress("D É\n".encode()))
    assert list(read_sentences([plain, packed])) == ["A B", "C", "D É"]
    packed.write_bytes(packed.read_bytes()[:-6])
    with pytest.raises(DataError, match=r"text .*b\.txt\.gz is damaged"):
        list(read_sentences([packed]))
    plain.write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text"):
        list(read_sentences([plain]))
    with pytest.raises(DataError, match=r"c\.txt does not exist"):
        list(read_sentences([tmp_path / "c.txt"]))


def test_a_sentence_is_on_one_side_only() -> None:
    sentences = [f"SENTENCE {n % 700}" for n in range(2000)]
    rest, dev = split_off_dev(sentences)
    assert len(rest) + len(dev) == 2000 and 0 < len(dev) < 200
    assert not set(rest) & set(dev)


def test_no_sentence_is_a_mistake() -> None:
    with pytest.raises(DataError, match="the text holds no sentence"):
        _encoded()


def test_the_hash_is_that_of_the_text() -> None:
    assert _encoded("A B").content_hash() == _encoded("A B").content_hash()
    assert _encoded("A B").content_hash() != _encoded("A C").content_hash()
    assert _encoded("A").targets.dtype == np.int32
