"""How does a language folder come to hold its lexicon, n-gram models and search graph?

Each function is one step from files to files, and says in one line what it made. Names and text
formats are icefall's; LG.pt, which holds an object of k2, is LG.npz here.

Invariant: all files of a folder belong to one word list and one vocabulary; the graph carries the
checksums of both.

Source: icefall, egs/librispeech/ASR/{prepare,prepare_lm}.sh.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from snowmelt.core.files import write_text
from snowmelt.text.arpa import read_arpa, write_arpa
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.kneser_ney import estimate_kneser_ney
from snowmelt.text.lexicon import (
    NOISE_ENTRIES,
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
from snowmelt.text.lexicon_fst import lexicon_to_transducer
from snowmelt.text.lg import compile_lg
from snowmelt.text.modified_kneser_ney import estimate_modified_kneser_ney
from snowmelt.text.symbols import BACKOFF, BOS, EOS, SymbolTable, read_lines, word_table
from snowmelt.text.tokenizer import load_tokenizer
from snowmelt.text.transducer import Transducer

__all__ = [
    "LG_FILE",
    "write_bpe_lexicon",
    "write_grammar",
    "write_lg",
    "write_phone_lang",
    "write_token_ngram",
    "write_word_arpa",
    "write_words",
]

LG_FILE: Final = "LG.npz"


def write_words(words: Iterable[str], words_path: Path) -> str:
    """Write words.txt of a plain list of words, with the entries of silence, noise and `<UNK>`.

    Raises:
        DataError: an entry is not one word.
    """
    table = word_table([*words, *(word for word, _ in NOISE_ENTRIES)])
    table.write(words_path)
    return f"{words_path.name}: {len(table)} symbols"


def write_phone_lang(lexicon_path: Path, lang_dir: Path, words: Iterable[str] = ()) -> str:
    """Make a folder of a phone lexicon: lexicon.txt, lexicon_disambig.txt, tokens.txt, words.txt.

    Args:
        lexicon_path: lines "WORD PHONE PHONE ...".
        lang_dir: for example data/lang_phone.
        words: more words for words.txt. They need no phones: nothing but words.txt goes from
            here into the graphs of BPE pieces.

    Raises:
        DataError: the lexicon is malformed.
    """
    lexicon = with_noise_entries(read_lexicon(lexicon_path))
    disambiguated, max_disambiguation = add_disambiguation(lexicon)
    write_lexicon(lang_dir / "lexicon.txt", lexicon)
    write_lexicon(lang_dir / "lexicon_disambig.txt", disambiguated)
    tokens = phone_table(lexicon, max_disambiguation)
    tokens.write(lang_dir / "tokens.txt")
    made = write_words([*(word for word, _ in lexicon), *words], lang_dir / "words.txt")
    return f"{lang_dir.name}: {len(lexicon)} pronunciations, {len(tokens)} phones; {made}"


def write_bpe_lexicon(words_path: Path, lang_dir: Path) -> str:
    """Spell every word in pieces: words.txt, lexicon.txt, lexicon_disambig.txt, tokens.txt.

    tokens.txt is written again, with `#0`, `#1`, ... behind the vocabulary.

    Args:
        words_path: a words.txt, for example data/lang_phone/words.txt.
        lang_dir: holds bpe.model.

    Raises:
        DataError: a file is missing or malformed, or a word cannot be spelled.
    """
    tokenizer = load_tokenizer(lang_dir)
    words = SymbolTable.read(words_path).with_symbols([BACKOFF, BOS, EOS])
    lexicon = spell_words(words, tokenizer)
    validate_lexicon(lexicon, tokenizer.id_to_token)
    disambiguated, max_disambiguation = add_disambiguation(lexicon)
    words.write(lang_dir / "words.txt")
    write_lexicon(lang_dir / "lexicon.txt", lexicon)
    write_lexicon(lang_dir / "lexicon_disambig.txt", disambiguated)
    disambiguated_tokens(tokenizer.id_to_token, max_disambiguation).write(lang_dir / "tokens.txt")
    return f"{lang_dir.name}: {len(lexicon)} words, disambiguation up to #{max_disambiguation}"


def write_word_arpa(texts: Iterable[str], words_path: Path, arpa_path: Path, order: int = 3) -> str:
    """Estimate an n-gram model of words, where none can be downloaded.

    Args:
        texts: one sentence each.
        words_path: the word table: other words count as `<UNK>`.
        arpa_path: the file to write.
        order: of the model.

    Raises:
        DataError: there is no text, or no word table.
    """
    vocabulary = set(SymbolTable.read(words_path)) - _NO_WORDS
    model = estimate_modified_kneser_ney(texts, order, vocabulary)
    write_arpa(arpa_path, model)
    return f"{arpa_path.name}: {_sizes(len(table.ids) for table in model.tables)} n-grams"


def write_grammar(arpa_path: Path, words_path: Path, grammar_path: Path) -> str:
    """Turn an ARPA file into a grammar over the ids of a word table (G_3_gram.fst.txt).

    Raises:
        DataError: a file is missing or malformed, or they have no word in common.
    """
    grammar = grammar_from_arpa(read_arpa(arpa_path), SymbolTable.read(words_path))
    grammar.write_text(grammar_path)
    return f"{grammar_path.name}: {grammar.num_states} states, {grammar.num_arcs} arcs"


def write_lg(lang_dir: Path, grammar_path: Path) -> str:
    """Compile lexicon and grammar into the search graph LG.npz.

    Args:
        lang_dir: a folder that `write_bpe_lexicon` filled.
        grammar_path: made with the same words.txt.

    Raises:
        DataError: a file is missing or malformed, or they do not belong together.
    """
    words_path = lang_dir / "words.txt"
    words = SymbolTable.read(words_path)
    tokens = SymbolTable.read(lang_dir / "tokens.txt")
    lexicon = lexicon_to_transducer(
        read_lexicon(lang_dir / "lexicon_disambig.txt"), tokens, words, has_backoff_loop=True
    )
    graph = compile_lg(lexicon, Transducer.read_text(grammar_path), tokens, words)
    made_from = [path for path in (lang_dir / "bpe.model", words_path) if path.exists()]
    graph.save(lang_dir / LG_FILE, made_from=made_from)
    return f"{LG_FILE}: {graph.num_states} states, {graph.num_arcs} arcs"


def write_token_ngram(transcript_path: Path, lang_dir: Path, order: int) -> str:
    """Estimate an n-gram model of pieces, by the recipe's Kneser-Ney.

    Writes transcript_tokens.txt, {order}gram.arpa and {order}gram.fst.txt.

    Args:
        transcript_path: one sentence of words a line.
        lang_dir: a folder that `write_bpe_lexicon` filled.
        order: of the model; the recipe makes 2, 3, 4 and 5.

    Raises:
        DataError: a file is missing or malformed, or there is no text.
    """
    lexicon = read_lexicon(lang_dir / "lexicon.txt")
    sentences = list(spell_text(_lines(transcript_path), lexicon))
    write_text(lang_dir / "transcript_tokens.txt", "".join(f"{line}\n" for line in sentences))
    model = estimate_kneser_ney(sentences, order)
    write_arpa(lang_dir / f"{order}gram.arpa", model)
    grammar = grammar_from_arpa(model, SymbolTable.read(lang_dir / "tokens.txt"))
    grammar.write_text(lang_dir / f"{order}gram.fst.txt")
    return f"{order}gram: {_sizes(len(table.ids) for table in model.tables)} n-grams"


# Symbols of words.txt that no text holds.
_NO_WORDS: Final = frozenset(word_table([])) | {"!SIL", "<SPOKEN_NOISE>"}


def _lines(path: Path) -> Iterator[str]:
    return (line for _, line in read_lines(path, "text"))


def _sizes(sizes: Iterable[int]) -> str:
    return " + ".join(map(str, sizes))
