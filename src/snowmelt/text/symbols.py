"""Which integer stands for a symbol of tokens.txt or words.txt, and which symbol for an integer?

Invariant: symbols and ids are unique, and id 0 of a table with `<eps>` is `<eps>`. Lines are
"symbol id", in UTF-8.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file, write_text

__all__ = ["BACKOFF", "BOS", "EOS", "EPSILON", "SymbolTable", "read_lines", "word_table"]

EPSILON: Final = "<eps>"
BACKOFF: Final = "#0"  # label of an n-gram's step to a shorter history
BOS: Final = "<s>"
EOS: Final = "</s>"

_GZIP: Final = b"\x1f\x8b"


class SymbolTable:
    """Symbols and their ids, in the order in which they were given.

    Args:
        ids: symbol -> id; ids are 0 or more.
        name: what to call the table in messages, usually its path.

    Raises:
        DataError: an id is given twice, or `<eps>` is not 0.

    Example:
        >>> table = SymbolTable({"<eps>": 0, "A": 1})
        >>> table["A"], table.symbol(1), len(table)
        (1, 'A', 2)
    """

    def __init__(self, ids: Mapping[str, int], name: str = "the symbol table") -> None:
        self._ids = dict(ids)
        self._symbols = {symbol_id: symbol for symbol, symbol_id in self._ids.items()}
        self.name = name
        if len(self._symbols) != len(self._ids):
            symbol = next(s for s, i in self._ids.items() if self._symbols[i] != s)
            other = self._symbols[self._ids[symbol]]
            raise DataError(f"{name} gives {symbol!r} and {other!r} the same id")
        if self._ids.get(EPSILON, 0) != 0:
            raise DataError(f"{name} has {EPSILON} at {self._ids[EPSILON]}", "its id must be 0")

    @classmethod
    def read(cls, path: str | Path) -> "SymbolTable":
        """Read lines of "symbol id".

        Raises:
            DataError: missing, not UTF-8, a line of another form, a symbol or id twice.
        """
        ids: dict[str, int] = {}
        for number, line in read_lines(path, "symbol table"):
            fields = line.split()
            if not fields:
                continue
            is_entry = len(fields) == 2 and fields[1].isascii() and fields[1].isdigit()
            if not is_entry or fields[0] in ids:
                raise DataError(
                    f"{path} line {number} is {line.strip()[:40]!r}",
                    "every line must be a new symbol and its id",
                )
            ids[fields[0]] = int(fields[1])
        return cls(ids, str(path))

    def write(self, path: str | Path) -> None:
        """Write lines of "symbol id", in order.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, "".join(f"{symbol} {i}\n" for symbol, i in self._ids.items()))

    def with_symbols(self, symbols: Iterable[str]) -> "SymbolTable":
        """The table with those of `symbols` that it lacks behind its largest id."""
        ids = dict(self._ids)
        for symbol in symbols:
            ids.setdefault(symbol, max(ids.values(), default=-1) + 1)
        return SymbolTable(ids, self.name)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    def __getitem__(self, symbol: str) -> int:
        """The id of a symbol.

        Raises:
            DataError: it has none.
        """
        try:
            return self._ids[symbol]
        except KeyError:
            raise DataError(f"{self.name} has no symbol {symbol!r}") from None

    def get(self, symbol: str) -> int | None:
        """The id of a symbol, None if it has none."""
        return self._ids.get(symbol)

    def symbol(self, symbol_id: int) -> str:
        """The symbol of an id.

        Raises:
            DataError: there is none.
        """
        try:
            return self._symbols[symbol_id]
        except KeyError:
            raise DataError(f"{self.name} has no symbol of id {symbol_id}") from None


def word_table(words: Iterable[str]) -> SymbolTable:
    """The layout of words.txt: `<eps>` 0, the words sorted, then `#0`, `<s>`, `</s>`.

    Args:
        words: in any order, repeated as you like; of the four symbols above none is needed.

    Raises:
        DataError: a word is empty or holds white space.

    Example:
        >>> list(word_table(["B", "A", "B"]))
        ['<eps>', 'A', 'B', '#0', '<s>', '</s>']

    Source: icefall, egs/librispeech/ASR/local/prepare_lang.py.
    """
    distinct = set(words) - {EPSILON, BACKOFF, BOS, EOS}
    for word in distinct:
        if len(word.split()) != 1 or word.split()[0] != word:
            raise DataError(f"{word!r} is not one word", "give words without white space")
    symbols = [EPSILON, *sorted(distinct), BACKOFF, BOS, EOS]
    return SymbolTable({symbol: i for i, symbol in enumerate(symbols)}, "the word table")


def read_lines(path: str | Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, plain or packed with gzip, with their numbers, from 1.

    Args:
        path: the file.
        what: what it is, as a message should begin.

    Raises:
        DataError: missing, unreadable, damaged or not UTF-8.
    """
    path = require_file(path, what, error=DataError)
    with path.open("rb") as stream:
        is_packed = stream.read(len(_GZIP)) == _GZIP
    try:
        # newline="\n": str.splitlines would also break at rare characters inside a word.
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="\n")
            if is_packed
            else path.open(encoding="utf-8", newline="\n")
        ) as lines:
            yield from enumerate(lines, start=1)
    except UnicodeDecodeError:
        raise DataError(f"{what} {path} is not UTF-8 text") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{what} {path} is damaged: {error}", "copy it again") from None
