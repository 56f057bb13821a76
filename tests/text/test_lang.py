"""Do the steps from a text to a search graph fit together, and does each say what is missing?"""

from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.text.graph import DecodingGraph
from snowmelt.text.lang import (
    write_bpe_lexicon,
    write_grammar,
    write_lg,
    write_phone_lang,
    write_token_ngram,
    write_word_arpa,
    write_words,
)
from snowmelt.text.lexicon import read_lexicon
from snowmelt.text.ngram import NgramLm
from snowmelt.text.symbols import SymbolTable
from snowmelt.text.tokenizer import load_tokenizer, train_bpe
from snowmelt.text.transducer import Transducer
from tests.text.paths import best_path

TEXTS = ["THE CAT SAT ON THE MAT", "A CAT AND A DOG", "THE DOG RAN", "MATS AND CATS", "A CAT"] * 4


@pytest.fixture
def lang_dir(tmp_path: Path) -> Path:
    lang_dir = tmp_path / "lang_bpe_22"
    train_bpe(TEXTS, 22).save(lang_dir)
    write_words({word for text in TEXTS for word in text.split()}, tmp_path / "words.txt")
    write_bpe_lexicon(tmp_path / "words.txt", lang_dir)
    return lang_dir


def test_from_texts_to_a_graph(lang_dir: Path, tmp_path: Path) -> None:
    arpa, grammar = tmp_path / "lm" / "3gram.arpa", tmp_path / "lm" / "G_3_gram.fst.txt"
    assert write_word_arpa(TEXTS, lang_dir / "words.txt", arpa).startswith("3gram.arpa: 14 + ")
    assert "states" in write_grammar(arpa, lang_dir / "words.txt", grammar)
    made = write_lg(lang_dir, grammar)
    made_from = [lang_dir / "bpe.model", lang_dir / "words.txt"]
    graph = DecodingGraph.load(lang_dir / "LG.npz", made_from=made_from)
    assert made == f"LG.npz: {graph.num_states} states, {graph.num_arcs} arcs"
    tokenizer = load_tokenizer(lang_dir)
    words = SymbolTable.read(lang_dir / "words.txt")
    for sentence in ["THE DOG SAT ON A MAT", "", "MATS RAN"]:
        _, word_ids = best_path(graph, tokenizer.encode(sentence))
        assert " ".join(words.symbol(i) for i in word_ids) == sentence
    # The graph knows which words it was made with.
    write_words(["OTHER"], lang_dir / "words.txt")
    with pytest.raises(DataError, match=r"made with another words\.txt"):
        DecodingGraph.load(lang_dir / "LG.npz", made_from=made_from)


def test_the_folder_of_a_lexicon(lang_dir: Path) -> None:
    words = SymbolTable.read(lang_dir / "words.txt")
    assert list(words)[:4] == ["<eps>", "!SIL", "<SPOKEN_NOISE>", "<UNK>"]
    lexicon = read_lexicon(lang_dir / "lexicon.txt")
    assert [word for word, _ in lexicon] == [*list(words)[4:-3], "<UNK>"]
    tokens = SymbolTable.read(lang_dir / "tokens.txt")
    assert tokens["#0"] == load_tokenizer(lang_dir).vocab_size == 22
    marks = {
        t for _, s in read_lexicon(lang_dir / "lexicon_disambig.txt") for t in s if t[0] == "#"
    }
    assert marks and marks | {"#0"} == {token for token in tokens if token[0] == "#"}
    # A second time, over its own files, nothing changes.
    before = {path.name: path.read_bytes() for path in lang_dir.iterdir()}
    write_bpe_lexicon(lang_dir / "words.txt", lang_dir)
    assert {path.name: path.read_bytes() for path in lang_dir.iterdir()} == before


def test_ngrams_of_tokens(lang_dir: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "transcript_words.txt"
    transcript.write_text("".join(f"{text}\n" for text in [*TEXTS, "A ZEBRA"]), encoding="utf-8")
    assert write_token_ngram(transcript, lang_dir, 3).startswith("3gram: ")
    sentences = (lang_dir / "transcript_tokens.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = load_tokenizer(lang_dir)
    pieces = [tokenizer.id_to_token[i] for i in tokenizer.encode("THE DOG RAN")]
    assert sentences[2].split() == pieces
    assert sentences[-1].endswith("▁ <unk>")
    backoff_id = SymbolTable.read(lang_dir / "tokens.txt")["#0"]
    lm = NgramLm(Transducer.read_text(lang_dir / "3gram.fst.txt"), backoff_id, "arpa")
    row = lm.next_scores(lm.start, tokenizer.vocab_size)
    assert np.isfinite(row[tokenizer.encode("THE")[0]])
    assert row[tokenizer.sos_eos_id] == -np.inf
    assert (lang_dir / "3gram.arpa").exists()


def test_the_folder_of_phones(tmp_path: Path) -> None:
    lexicon = tmp_path / "librispeech-lexicon.txt"
    lexicon.write_text("B\tb iy\nA\tah\nA\tey\n", encoding="utf-8")
    write_phone_lang(lexicon, tmp_path / "lang_phone", ["ZEBRA", "A"])
    folder = tmp_path / "lang_phone"
    assert list(SymbolTable.read(folder / "words.txt"))[3:] == [
        *("<UNK>", "A", "B", "ZEBRA", "#0", "<s>", "</s>")
    ]
    assert list(SymbolTable.read(folder / "tokens.txt")) == [
        *("<eps>", "SIL", "SPN", "ah", "b", "ey", "iy", "#0", "#1", "#2")
    ]
    assert read_lexicon(folder / "lexicon.txt")[-1] == ("B", ("b", "iy"))
    assert ("<UNK>", ("SPN", "#2")) in read_lexicon(folder / "lexicon_disambig.txt")


def test_what_is_missing(lang_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"grammar .*G\.txt does not exist"):
        write_lg(lang_dir, tmp_path / "G.txt")
    with pytest.raises(DataError, match=r"n-gram model .*3\.arpa does not exist"):
        write_grammar(tmp_path / "3.arpa", lang_dir / "words.txt", tmp_path / "G.txt")
    with pytest.raises(DataError, match=r"text .*t\.txt does not exist"):
        write_token_ngram(tmp_path / "t.txt", lang_dir, 2)
    assert not (lang_dir / "LG.npz").exists() and not (tmp_path / "G.txt").exists()
