"""What does an n-gram model in ARPA form say, and how is one written?

Invariant: numbers are kept as the file has them, logarithms to the base 10. The n-grams of each
order keep their places; a word's number is the place of its first appearance.

Source: the ARPA format of SRILM's ngram-format(5).
"""

import gzip
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path, require_file

__all__ = ["ArpaModel", "NgramTable", "read_arpa", "write_arpa"]

_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class NgramTable:
    """The M n-grams of one order.

    Attributes:
        ids: (M, order) int32, numbers of their words.
        log10_probs: (M,) float64, log10 p(last word | the words before).
        log10_backoffs: (M,) float64, log10 of the factor for words not seen after these; NaN
            where the model gives none, which means 0.
    """

    ids: npt.NDArray[np.int32]
    log10_probs: npt.NDArray[np.float64]
    log10_backoffs: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArpaModel:
    """An n-gram model with backoff.

    Attributes:
        words: number of a word -> the word.
        tables: the n-grams of order 1, 2, ...; the last is the highest.
    """

    words: Sequence[str]
    tables: Sequence[NgramTable]

    @property
    def order(self) -> int:
        """The highest order."""
        return len(self.tables)

    def rows(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Where n-grams stand in the table of their order.

        Args:
            ids: (M, k) numbers of words, 1 <= k <= order.

        Returns:
            (M,) rows of table k; -1 where the n-gram, or any of its beginnings, is not listed.
        """
        return _find(self._indexes, len(self.words), ids)

    @cached_property
    def _indexes(self) -> list["_Index"]:
        indexes: list[_Index] = []
        for order, table in enumerate(self.tables, start=1):
            rows = _find(indexes, len(self.words), table.ids[:, :-1])
            keys = rows * len(self.words) + table.ids[:, -1]
            # An n-gram whose beginning is not listed can never be reached.
            keys[rows < 0] = -1
            places = np.argsort(keys, kind="stable")
            keys = keys[places]
            twice = np.flatnonzero((np.diff(keys) == 0) & (keys[1:] >= 0))
            if len(twice):
                ngram = " ".join(self.words[i] for i in table.ids[places[twice[0]]])
                raise DataError(f"the n-gram model lists the {order}-gram {ngram!r} twice")
            indexes.append((keys, places))
        return indexes


# Of one order: sorted keys (row of the history, last word), and the rows they belong to.
_Index = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _find(
    indexes: Sequence[_Index], num_words: int, ids: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Rows of the n-grams `ids`, word by word from their beginning; of the empty one 0."""
    rows = np.zeros(len(ids), dtype=np.int64)
    for column, (keys, places) in zip(ids.T, indexes, strict=False):
        if not len(keys):
            return np.full(len(ids), -1, dtype=np.int64)
        wanted = rows * num_words + column
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        rows = np.where((rows >= 0) & (keys[at] == wanted), places[at], -1)
    return rows


def read_arpa(path: str | Path) -> ArpaModel:
    """Read an ARPA file, plain or packed with gzip.

    Raises:
        DataError: missing, damaged, cut off, or not of this form; the message names the line.
    """
    path = require_file(path, "n-gram model", error=DataError)
    reader = _Reader(path)
    try:
        return reader.model()
    except UnicodeDecodeError:
        raise DataError(f"n-gram model {path} is not UTF-8 text") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"n-gram model {path} is damaged: {error}") from None


def write_arpa(path: str | Path, model: ArpaModel) -> None:
    """Write an ARPA file, numbers with seven digits after the point.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("\\data\\\n")
        for order, table in enumerate(model.tables, start=1):
            stream.write(f"ngram {order}={len(table.ids)}\n")
        for order, table in enumerate(model.tables, start=1):
            stream.write(f"\n\\{order}-grams:\n")
            stream.writelines(_lines(model.words, table))
        stream.write("\n\\end\\\n")


def _lines(words: Sequence[str], table: NgramTable) -> Iterator[str]:
    columns = zip(
        table.ids.tolist(),
        table.log10_probs.tolist(),
        table.log10_backoffs.tolist(),
        strict=True,
    )
    for ids, log10_prob, log10_backoff in columns:
        # NaN is equal to nothing, itself included.
        backoff = f"\t{log10_backoff:.7f}" if log10_backoff == log10_backoff else ""
        yield f"{log10_prob:.7f}\t{' '.join([words[i] for i in ids])}{backoff}\n"


class _Reader:
    """Reads one file from top to bottom."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0  # of the line read last
        self.word_ids: dict[str, int] = {}

    def model(self) -> ArpaModel:
        lines = self._lines()
        counts = self._header(lines)
        tables = []
        for order, count in enumerate(counts, start=1):
            if self.line != f"\\{order}-grams:":
                raise self._error(f"expected \\{order}-grams:")
            tables.append(self._table(lines, order, count))
        if self.line != "\\end\\":
            raise self._error("expected \\end\\: is the file cut off?")
        return ArpaModel(list(self.word_ids), tables)

    def _lines(self) -> Iterator[str]:
        with self.path.open("rb") as stream:
            is_packed = stream.read(2) == _GZIP
        # newline="\n": some words hold characters that would also count as ends of lines.
        with (
            gzip.open(self.path, "rt", encoding="utf-8", newline="\n")
            if is_packed
            else self.path.open(encoding="utf-8", newline="\n")
        ) as text:
            for line in text:
                self.number += 1
                self.line = line.strip()
                if self.line:
                    yield self.line
        self.line = "the end of the file"

    def _header(self, lines: Iterator[str]) -> list[int]:
        for line in lines:
            if line == "\\data\\":
                break
        else:
            raise DataError(f"n-gram model {self.path} has no line \\data\\", "pass an ARPA file")
        counts: list[int] = []
        for line in lines:
            if line.startswith("\\"):
                break
            order, _, count = line.removeprefix("ngram").partition("=")
            if order.strip() != str(len(counts) + 1) or not count.strip().isdecimal():
                raise self._error(f"expected 'ngram {len(counts) + 1}=' and a count")
            counts.append(int(count))
        if not counts or not counts[0]:
            raise self._error("there are no 1-grams")
        return counts

    def _table(self, lines: Iterator[str], order: int, count: int) -> NgramTable:
        ids, log10_probs, log10_backoffs = array("i"), array("d"), array("d")
        word_ids = self.word_ids
        for line in lines:
            fields = line.split()
            if len(fields) not in (order + 1, order + 2):
                if line.startswith("\\"):
                    break
                raise self._error(f"expected a number, {order} words and perhaps a number")
            try:
                log10_probs.append(float(fields[0]))
                log10_backoffs.append(
                    float(fields[order + 1]) if len(fields) == order + 2 else np.nan
                )
            except ValueError:
                raise self._error("expected a number") from None
            for word in fields[1 : order + 1]:
                ids.append(word_ids.setdefault(word, len(word_ids)))
        if len(log10_probs) != count:
            raise self._error(
                f"there are {len(log10_probs)} {order}-grams, the head of the file says {count}"
            )
        table = NgramTable(
            np.array(ids, dtype=np.int32).reshape(count, order),
            np.array(log10_probs),
            np.array(log10_backoffs),
        )
        if not np.isfinite(table.log10_probs).all():
            raise self._error(f"a {order}-gram above has no finite probability")
        return table

    def _error(self, what: str) -> DataError:
        return DataError(
            f"n-gram model {self.path} line {self.number} is {self.line[:60]!r}: {what}",
            "pass a whole ARPA file",
        )
