"""How is every word spelled in tokens, and which spellings need a mark to tell words apart?

A lexicon is a list of (word, tokens); a word with several pronunciations has several entries. In
files: lines "WORD token token ...", separated by blanks or tabs.

Invariant: every entry has a token; `<eps>` is no word. After `add_disambiguation` no spelling is
equal to another or a beginning of another, so that a graph made from the entries can be
determinized.

Source: icefall, icefall/lexicon.py, egs/librispeech/ASR/local/{prepare_lang,prepare_lang_bpe,
validate_bpe_lexicon}.py.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from snowmelt.core.errors import DataError
from snowmelt.core.files import write_text
from snowmelt.text.symbols import BACKOFF, BOS, EOS, EPSILON, SymbolTable, read_lines
from snowmelt.text.tokenizer import Tokenizer

__all__ = [
    "NOISE_ENTRIES",
    "UNKNOWN_WORD",
    "Lexicon",
    "add_disambiguation",
    "disambiguated_tokens",
    "phone_table",
    "read_lexicon",
    "spell_text",
    "spell_words",
    "validate_lexicon",
    "with_noise_entries",
    "write_lexicon",
]

Lexicon = Sequence[tuple[str, Sequence[str]]]

UNKNOWN_WORD: Final = "<UNK>"

# What a phone lexicon says of sounds that are no words.
NOISE_ENTRIES: Final[Lexicon] = (
    ("!SIL", ("SIL",)),
    ("<SPOKEN_NOISE>", ("SPN",)),
    (UNKNOWN_WORD, ("SPN",)),
)

# Symbols of words.txt that have no spelling in BPE pieces.
_UNSPELLED: Final = frozenset({EPSILON, "!SIL", "<SPOKEN_NOISE>", UNKNOWN_WORD, BACKOFF, BOS, EOS})


_MANY_UNKNOWN: Final = 0.05

_log = logging.getLogger(__name__)


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a lexicon file.

    Raises:
        DataError: missing, not UTF-8, empty, a line with a word alone, `<eps>` as a word.
    """
    lexicon = []
    for number, line in read_lines(path, "lexicon"):
        word, *tokens = line.split() or [""]
        if not word:
            continue
        if not tokens:
            raise DataError(
                f"lexicon {path} line {number}: {word!r} has no tokens",
                "every line must be a word and how it is pronounced",
            )
        if word == EPSILON:
            raise DataError(f"lexicon {path} line {number}: {EPSILON} cannot be a word")
        lexicon.append((word, tuple(tokens)))
    if not lexicon:
        raise DataError(f"lexicon {path} is empty")
    return lexicon


def write_lexicon(path: str | Path, lexicon: Lexicon) -> None:
    """Write lines "WORD token token ...".

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, "".join(f"{' '.join([word, *tokens])}\n" for word, tokens in lexicon))


def with_noise_entries(lexicon: Lexicon) -> Lexicon:
    """A phone lexicon with the entries of silence, noise and the unknown word, as icefall has it.

    Returns:
        distinct entries, in the order of the bytes of their lines.
    """
    lines = {" ".join([word, *phones]) for word, phones in [*NOISE_ENTRIES, *lexicon]}
    entries = (line.split() for line in sorted(lines, key=lambda line: line.encode("utf-8")))
    return [(word, tuple(phones)) for word, *phones in entries]


def spell_words(words: SymbolTable, tokenizer: Tokenizer) -> Lexicon:
    """Spell every word of words.txt in pieces: one entry each, the best segmentation.

    Args:
        words: the word table; `!SIL`, `<SPOKEN_NOISE>`, `#0` and the like are left out.
        tokenizer: must begin each word with a token of its own, as BPE and whole words do.

    Returns:
        the entries in the order of the table, and last `<UNK>`, spelled as an empty word begun
        and an unknown piece, if the vocabulary has a lone "▁".

    Raises:
        DataError: a word has no spelling, or the vocabulary is one of characters.
    """
    if tokenizer.kind == "chars":
        raise DataError(
            "a lexicon needs tokens that begin a word, the vocabulary has single characters",
            "use a BPE vocabulary or one of whole words",
        )
    unknown = tokenizer.id_to_token[tokenizer.unk_id]
    lexicon = []
    for word in words:
        if word in _UNSPELLED:
            continue
        pieces = tuple(tokenizer.id_to_token[token_id] for token_id in tokenizer.encode(word))
        if not pieces:
            raise DataError(f"the word {word!r} of {words.name} has no spelling", "remove it")
        lexicon.append((word, pieces))
    num_unknown = sum(unknown in pieces for _, pieces in lexicon)
    if num_unknown > _MANY_UNKNOWN * len(lexicon):
        _log.warning(
            "%d of %d words have letters that the vocabulary lacks: upper or lower case?",
            num_unknown,
            len(lexicon),
        )
    pieces = ("▁", unknown) if "▁" in tokenizer.id_to_token else (unknown,)
    return [*lexicon, (UNKNOWN_WORD, pieces)]


def spell_text(sentences: Iterable[str], lexicon: Lexicon) -> Iterator[str]:
    """Replace every word by its tokens, the first entry counting, and others by those of `<UNK>`.

    Args:
        sentences: one line each.
        lexicon: with an entry of `<UNK>`.

    Raises:
        DataError: it has none.
    """
    spelling: dict[str, str] = {}
    for word, tokens in lexicon:
        spelling.setdefault(word, " ".join(tokens))
    unknown = spelling.get(UNKNOWN_WORD)
    if unknown is None:
        raise DataError(f"the lexicon has no entry of {UNKNOWN_WORD}")
    for sentence in sentences:
        yield " ".join([spelling.get(word, unknown) for word in sentence.split()])


def validate_lexicon(lexicon: Lexicon, tokens: Iterable[str]) -> None:
    """Check that a lexicon uses known tokens only.

    Raises:
        DataError: an entry has another one; the message names the word.
    """
    known = frozenset(tokens)
    for word, spelling in lexicon:
        for token in spelling:
            if token not in known:
                raise DataError(
                    f"the lexicon spells {word!r} with {token!r}, which is no token",
                    "make the lexicon again from the vocabulary of the acoustic model",
                )


def add_disambiguation(lexicon: Lexicon) -> tuple[Lexicon, int]:
    """Append `#1`, `#2`, ... to spellings that are equal, or the beginning of another.

    Returns:
        the entries in the same order, and the largest number used (0: none was needed). `#0` is
        never used: it belongs to the backoff of n-grams.

    Example:
        >>> add_disambiguation([("TWO", ["t"]), ("TOO", ["t"]), ("TEA", ["t", "i"])])
        ([('TWO', ('t', '#1')), ('TOO', ('t', '#2')), ('TEA', ('t', 'i'))], 2)
    """
    spellings = [tuple(tokens) for _, tokens in lexicon]
    count = Counter(spellings)
    prefixes = {spelling[:i] for spelling in count for i in range(1, len(spelling))}
    used: Counter[tuple[str, ...]] = Counter()
    disambiguated = []
    for (word, _), spelling in zip(lexicon, spellings, strict=True):
        if count[spelling] > 1 or spelling in prefixes:
            used[spelling] += 1
            spelling = (*spelling, f"#{used[spelling]}")
        disambiguated.append((word, spelling))
    return disambiguated, max(used.values(), default=0)


def disambiguated_tokens(tokens: Sequence[str], max_disambiguation: int) -> SymbolTable:
    """The layout of tokens.txt after a lexicon was made: the tokens, then `#0` to `#k`.

    Args:
        tokens: the vocabulary in the order of its ids.
        max_disambiguation: k, as `add_disambiguation` returns it.
    """
    symbols = [*tokens, *(f"#{i}" for i in range(max_disambiguation + 1))]
    return SymbolTable({symbol: i for i, symbol in enumerate(symbols)}, "the token table")


def phone_table(lexicon: Lexicon, max_disambiguation: int) -> SymbolTable:
    """The layout of a phone lexicon's tokens.txt: `<eps>`, the phones sorted, then `#0` to `#k`."""
    phones = {phone for _, spelling in lexicon for phone in spelling}
    return disambiguated_tokens([EPSILON, *sorted(phones)], max_disambiguation)
