"""Do texts survive the way through ids and files, and do bad texts and files say what is wrong?"""

import random
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.core.errors import ConfigError, DataError
from snowmelt.text.tokenizer import (
    BpeTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    build_chars,
    build_words,
    joined_tokens,
    load_tokenizer,
    train_bpe,
    vocabulary_hash,
)

WORDS = ["THE", "CAT", "SAT", "ON", "A", "MAT", "IT'S", "RAINY", "AND", "WINDY", "OPEN", "DOOR"]


def sentences() -> list[str]:
    rng = random.Random(7)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 7))) for _ in range(200)]


BPE = train_bpe(sentences(), 30)
CHARS = build_chars(sentences())
WHOLE_WORDS = build_words(sentences())
ALL = [BPE, CHARS, WHOLE_WORDS]
all_kinds = pytest.mark.parametrize("tokenizer", ALL, ids=lambda tokenizer: tokenizer.kind)


def processor() -> sentencepiece.SentencePieceProcessor:
    assert BPE._model is not None
    return sentencepiece.SentencePieceProcessor(model_proto=BPE._model)


@all_kinds
def test_the_first_ids(tokenizer: Tokenizer) -> None:
    assert list(tokenizer.id_to_token[:3]) == ["<blk>", "<sos/eos>", "<unk>"]
    assert (tokenizer.blank_id, tokenizer.sos_eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.vocab_size == len(tokenizer.id_to_token)


@all_kinds
@given(
    words=st.lists(st.sampled_from(WORDS), max_size=6), blanks=st.sampled_from([" ", "  \t", "▁"])
)
def test_known_words_survive(tokenizer: Tokenizer, words: list[str], blanks: str) -> None:
    ids = tokenizer.encode(blanks.join(words))
    assert not {0, 1, 2} & set(ids)
    assert tokenizer.decode(ids) == " ".join(words)


def test_what_is_unknown() -> None:
    assert CHARS.encode("AéX") == [CHARS.id_to_token.index("A"), 2, 2]
    assert WHOLE_WORDS.encode("THE DOG") == [WHOLE_WORDS.id_to_token.index("▁THE"), 2]
    assert BPE.encode("ÉÈ").count(2) == 1
    assert [tokenizer.decode([2]) for tokenizer in ALL] == ["⁇"] * 3


def test_tokens_that_begin_a_word_say_so() -> None:
    assert [CHARS.id_to_token[i] for i in CHARS.encode("A CAT")] == ["A", "▁", "C", "A", "T"]
    assert [WHOLE_WORDS.id_to_token[i] for i in WHOLE_WORDS.encode("A CAT")] == ["▁A", "▁CAT"]


def test_bpe_ids_are_sentencepieces() -> None:
    reference = processor()
    assert BPE.vocab_size == reference.get_piece_size() == 30
    for text in [*sentences(), "", "  A  CAT ", "A▁CAT", "é UNKNOWN"]:
        assert BPE.encode(text) == reference.encode(text, out_type=int)


@given(st.lists(st.integers(0, 29), max_size=8))
def test_bpe_decodes_to_the_words_of_sentencepiece(ids: list[int]) -> None:
    assert BPE.decode(ids).split() == processor().decode(ids).split()


def test_bpe_training_repeats() -> None:
    again = train_bpe(iter(sentences()), 30)
    assert vocabulary_hash(again) == vocabulary_hash(BPE)
    assert again._model == BPE._model


RUSSIAN = ["привет мир", "мир вам", "как дела", "дела хорошо", "привет как дела"] * 20
BYTES = train_bpe([*RUSSIAN, "世 界"], 275, character_coverage=0.995, byte_fallback=True)


def _tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.id_to_token[i] for i in tokenizer.encode(text)]


def test_other_scripts() -> None:
    for tokenizer in (train_bpe(RUSSIAN, 20), build_chars(RUSSIAN), build_words(RUSSIAN)):
        for text in RUSSIAN:
            ids = tokenizer.encode(text)
            assert not {0, 1, 2} & set(ids)
            assert tokenizer.decode(ids) == text
    # Marks are characters of their own, and stay behind their letters.
    hindi = build_chars(["नमस्ते दुनिया"])
    assert hindi.decode(hindi.encode("दुनिया नमस्ते")) == "दुनिया नमस्ते"
    chinese = build_chars(["你好世界"])
    assert _tokens(chinese, "世界你好") == ["世", "界", "你", "好"]
    assert chinese.decode(chinese.encode("世界你好")) == "世界你好"


def test_what_is_rare_is_spelled_in_bytes(tmp_path: Path) -> None:
    assert BYTES.id_to_token[:4] == ["<blk>", "<sos/eos>", "<unk>", "<0x00>"]
    # The two rarest characters are left out.
    assert _tokens(BYTES, "привет 世")[-4:] == ["▁", "<0xE4>", "<0xB8>", "<0x96>"]
    BYTES.save(tmp_path)
    for text in ("世", "привет 世界 мир", "naïve 你好 привет", "٣ नमस्ते 𝄞"):
        ids = BYTES.encode(text)
        assert BYTES.unk_id not in ids
        assert load_tokenizer(tmp_path).decode(ids) == text
    # Without bytes they are unknown.
    covered = train_bpe([*RUSSIAN, "世 界"], 20, character_coverage=0.995)
    assert covered.encode("世 界").count(2) == 2
    complete = train_bpe([*RUSSIAN, "世 界"], 22)
    assert complete.decode(complete.encode("世 界")) == "世 界"


@given(st.text(max_size=6))
def test_bytes_decode_as_sentencepiece_does(text: str) -> None:
    # It also writes some characters in another way, and knows no blank but one.
    normal = " ".join(unicodedata.normalize("NFKC", text).split())
    assert BYTES._model is not None
    reference = sentencepiece.SentencePieceProcessor(model_proto=BYTES._model)
    if not any(special in normal for special in ("<blk>", "<sos/eos>", "▁")):
        ids = BYTES.encode(normal)
        assert BYTES.decode(ids).split() == reference.decode(ids).split()


def test_a_character_appears_when_it_is_complete() -> None:
    ids = BYTES.encode("мир 世界")
    texts = [BYTES.decode(ids[:n]) for n in range(len(BYTES.encode("мир")), len(ids) + 1)]
    assert list(dict.fromkeys(texts)) == ["мир", "мир 世", "мир 世界"]
    # A broken one leaves no trace, and bytes make no blanks and no words.
    assert joined_tokens(["▁a", "<0xE4>", "b", "<0xB8>"]) == "▁ab"
    assert joined_tokens(["▁a", "<0x20>", "<0xE2>", "<0x96>", "<0x81>", "b", "<0x62>"]) == "▁abb"


def test_coverage_has_bounds() -> None:
    with pytest.raises(ConfigError, match=r"cannot cover 0\.9 of .* \(hint: choose 0\.98 to 1\)"):
        train_bpe(RUSSIAN, 30, character_coverage=0.9)
    with pytest.raises(DataError, match="choose another vocabulary size, 256 are bytes"):
        train_bpe(RUSSIAN, 100, byte_fallback=True)


def test_hashes_tell_vocabularies_apart() -> None:
    assert len({vocabulary_hash(tokenizer) for tokenizer in ALL}) == 3
    assert vocabulary_hash(build_words(sentences())) == vocabulary_hash(WHOLE_WORDS)
    assert len(vocabulary_hash(BPE)) == 64


@pytest.mark.parametrize("special", ["<blk>", "<sos/eos>"])
def test_texts_that_spell_a_special_token(special: str) -> None:
    with pytest.raises(DataError, match=f"'THE {special} CAT' contains"):
        BPE.encode(f"THE {special} CAT")
    with pytest.raises(DataError, match="contains one of <blk>"):
        train_bpe([*sentences(), f"THE {special}"], 30)
    # In the other kinds it is a word or some characters like any other.
    assert WHOLE_WORDS.encode(special) == [2]
    assert not {0, 1} & set(CHARS.encode(special))


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        ([], 30, "there is no text"),
        (["", "  "], 30, "there is no text"),
        (sentences(), 5000, r"5000 pieces .* 200 texts: .*too high \(5000\).* <= \d+"),
        (sentences(), 10, r"10 pieces .* smaller than required_chars. 10 vs \d+. \(hint"),
    ],
)
def test_impossible_bpe_trainings(texts: list[str], vocab_size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_bpe(texts, vocab_size)


@all_kinds
def test_ids_beyond_the_vocabulary(tokenizer: Tokenizer) -> None:
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=f"token id {token_id} is not in the vocabulary of"):
            tokenizer.decode([3, token_id])


@all_kinds
def test_saved_and_loaded(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "lang")
    for path in (tmp_path / "lang", tmp_path / "lang" / "tokens.txt"):
        loaded = load_tokenizer(path)
        assert type(loaded) is type(tokenizer)
        assert vocabulary_hash(loaded) == vocabulary_hash(tokenizer)
        assert loaded.encode("A CAT") == tokenizer.encode("A CAT")
    first_line = (tmp_path / "lang" / "tokens.txt").read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "<blk> 0"


def test_a_folder_of_icefall(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    (tmp_path / "tokenizer.yaml").unlink()
    assert load_tokenizer(tmp_path).encode("A CAT") == BPE.encode("A CAT")
    # prepare_lm.sh appends disambiguation symbols, which are no part of the vocabulary.
    with (tmp_path / "tokens.txt").open("a", encoding="utf-8") as tokens:
        tokens.write("#0 30\n#1 31\n")
    assert load_tokenizer(tmp_path).vocab_size == 30
    (tmp_path / "tokens.txt").unlink()
    for path in (tmp_path, tmp_path / "bpe.model"):
        assert isinstance(load_tokenizer(path), BpeTokenizer)
        assert vocabulary_hash(load_tokenizer(path)) == vocabulary_hash(BPE)


def test_bpe_without_its_model_only_decodes(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    (tmp_path / "bpe.model").unlink()
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(BPE.encode("A CAT")) == "A CAT"
    with pytest.raises(DataError, match=r"needs bpe\.model .hint: put it beside tokens\.txt"):
        tokenizer.encode("A CAT")
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").decode(BPE.encode("A CAT")) == "A CAT"


def test_model_and_table_of_different_vocabularies(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    CHARS.save(tmp_path / "chars")
    (tmp_path / "chars" / "tokens.txt").replace(tmp_path / "tokens.txt")
    with pytest.raises(DataError, match="are of different vocabularies"):
        load_tokenizer(tmp_path).encode("A")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<blk> 0\n<sos/eos> 1\n<unk> 2\nA\n", "line 4 is 'A'"),
        ("<blk> 0\n<sos/eos> 1\n<unk> 2\nA 2\n", "line 4 is 'A 2'"),
        ("<blk> 0\n<sos/eos> 1\n<unk> 2\nA 4\n", "leaves out ids below 4"),
        ("<blk> 0\n<sos/eos> 1\n<unk> 2\nA 3\nA 4\n", "has token 'A' twice"),
        ("<eps> 0\n<sos/eos> 1\n<unk> 2\n", "begins with <eps> <sos/eos> <unk>"),
        ("<blk> 0\n<sos/eos> 1\n<unk> " + 5000 * "2" + "\n", "line 3 is '<unk> 222"),
        ("", "begins with nothing"),
    ],
)
def test_malformed_tables(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokens.txt").write_text(content, encoding="utf-8")
    (tmp_path / "tokenizer.yaml").write_text("kind: chars\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_tokenizer(tmp_path)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokens\.txt does not exist"):
        load_tokenizer(tmp_path)
    CHARS.save(tmp_path)
    (tmp_path / "tokenizer.yaml").write_text("kind: syllables\n", encoding="utf-8")
    with pytest.raises(DataError, match="has kind 'syllables'"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.yaml").unlink()
    with pytest.raises(DataError, match="alone does not say how text is cut"):
        load_tokenizer(tmp_path)
    (tmp_path / "bpe.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"\.model is no sentencepiece model"):
        load_tokenizer(tmp_path / "bpe.model")
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_tokenizer(tmp_path)


def test_kinds() -> None:
    assert [type(tokenizer) for tokenizer in ALL] == [BpeTokenizer, CharTokenizer, WordTokenizer]
    assert [tokenizer.kind for tokenizer in ALL] == ["bpe", "chars", "words"]
