"""How is a graph that a search walks along kept: which tokens may follow, what do they cost, which
words do they make?

Invariant: plain arrays, never changed after they were made. Scores are natural logarithms (larger
is better), not costs. State 0 is the start. Label 0 is epsilon: a step that takes no token.

Source: k2's decoding graphs, with the arcs into the super-final state folded into `final_scores`;
OpenFst's text form.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path, require_file

__all__ = ["DecodingGraph", "graph_from_k2_arcs", "read_fst_text", "trivial_graph"]

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]

_FORMAT: Final = "snowmelt decoding graph"
_FORMAT_VERSION: Final = 1
_ARRAYS: Final = {
    "row_splits": np.int64,
    "dst": np.int32,
    "labels": np.int32,
    "scores": np.float32,
    "word_splits": np.int64,
    "words": np.int32,
    "final_scores": np.float32,
}


@dataclass(frozen=True, eq=False)
class DecodingGraph:
    """A graph of S states and A arcs; the arcs of a state lie together.

    Attributes:
        row_splits: (S + 1,) int64; arcs of state s are row_splits[s] to row_splits[s + 1].
        dst: (A,) int32, state an arc leads to.
        labels: (A,) int32, its token id; 0 is epsilon.
        scores: (A,) float32, natural log.
        word_splits: (A + 1,) int64; words of arc a are words[word_splits[a]:word_splits[a + 1]].
        words: (W,) int32, word ids.
        final_scores: (S,) float32, natural log of ending in a state; -inf where none may end.

    Raises:
        DataError: the arrays do not fit together.
    """

    row_splits: _Int64
    dst: _Int32
    labels: _Int32
    scores: _Float32
    word_splits: _Int64
    words: _Int32
    final_scores: _Float32

    def __post_init__(self) -> None:
        for name, dtype in _ARRAYS.items():
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            object.__setattr__(self, name, array)
        problem = self._problem()
        if problem:
            raise DataError(f"a decoding graph does not hold together: {problem}")

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.final_scores)

    @property
    def num_arcs(self) -> int:
        """A."""
        return len(self.dst)

    @property
    def has_epsilons(self) -> bool:
        """Whether any arc takes no token."""
        return bool((self.labels == 0).any())

    @property
    def has_words(self) -> bool:
        """Whether any arc makes a word; without, the tokens are the result."""
        return len(self.words) > 0

    def with_scale(self, ngram_lm_scale: float) -> "DecodingGraph":
        """The same graph, every score times `ngram_lm_scale`, those of ending included."""
        if not np.isfinite(ngram_lm_scale):
            raise DataError(f"the scale of a graph must be a number, got {ngram_lm_scale}")
        scale = np.float32(ngram_lm_scale)
        is_final = np.isfinite(self.final_scores)
        # Not by one product: 0 times -inf is nan, and a scale below 0 would open every state.
        final_scores = np.full_like(self.final_scores, -np.inf)
        final_scores[is_final] = self.final_scores[is_final] * scale
        return DecodingGraph(
            self.row_splits,
            self.dst,
            self.labels,
            self.scores * scale,
            self.word_splits,
            self.words,
            final_scores,
        )

    def save(self, path: str | Path, *, made_from: Iterable[Path] = ()) -> None:
        """Write the graph as one .npz file, whole or not at all.

        Args:
            path: an existing file is replaced.
            made_from: files whose ids the graph uses (bpe.model, words.txt): their names and
                checksums are stored, so that `load` can refuse others.

        Raises:
            UserError: the file cannot be written, or one of `made_from` not be read.
        """
        checksums = [f"{file.name} {_checksum(file)}" for file in made_from]
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                format=np.array(_FORMAT),
                version=np.array(_FORMAT_VERSION),
                checksums=np.array(checksums, dtype=np.str_),
                **{name: getattr(self, name) for name in _ARRAYS},
            )

    @staticmethod
    def load(path: str | Path, *, made_from: Iterable[Path] = ()) -> "DecodingGraph":
        """Read what `save` wrote.

        Args:
            path: the .npz file.
            made_from: files whose ids the caller will use; each that was named when the graph was
                saved must have the same content now.

        Raises:
            DataError: missing, not such a file, of a newer version, damaged, or made with another
                vocabulary or word list.
        """
        path = require_file(path, "decoding graph", error=DataError)
        try:
            # Opened here: of a file it cannot read numpy forgets the handle.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                if "format" not in stored or str(stored["format"]) != _FORMAT:
                    raise DataError(f"{path} is not a decoding graph")
                version = int(stored["version"])
                if version != _FORMAT_VERSION:
                    raise DataError(
                        f"{path} is of version {version}, this program reads {_FORMAT_VERSION}",
                        "compile the graph again with this version of snowmelt",
                    )
                checksums = dict(str(line).rsplit(" ", 1) for line in stored["checksums"])
                arrays = {name: stored[name] for name in _ARRAYS}
        except DataError:
            raise
        except Exception as error:  # damaged bytes fail in numpy and zipfile in many ways
            raise DataError(f"{path} is not a decoding graph, or is damaged: {error}") from None
        for file in made_from:
            if file.name in checksums and checksums[file.name] != _checksum(file):
                raise DataError(
                    f"{path} was made with another {file.name} than {file}",
                    "compile the graph again from this folder",
                )
        try:
            return DecodingGraph(**arrays)
        except DataError as error:
            raise DataError(f"{path} is damaged: {error.message}") from None

    def _problem(self) -> str:
        """What is wrong with the arrays; empty if nothing is."""
        if any(getattr(self, name).ndim != 1 for name in _ARRAYS):
            return "an array has more than one axis"
        num_states, num_arcs = self.num_states, self.num_arcs
        if num_states == 0:
            return "there is no state"
        if not len(self.labels) == len(self.scores) == num_arcs:
            return f"{num_arcs} targets, {len(self.labels)} labels, {len(self.scores)} scores"
        for name, num_rows, total in (
            ("row_splits", num_states, num_arcs),
            ("word_splits", num_arcs, len(self.words)),
        ):
            splits = getattr(self, name)
            if len(splits) != num_rows + 1 or splits[0] != 0 or splits[-1] != total:
                return f"{name} must have {num_rows + 1} entries from 0 to {total}"
            if (np.diff(splits) < 0).any():
                return f"{name} goes down"
        if num_arcs and not (self.dst.min() >= 0 and self.dst.max() < num_states):
            return f"an arc leads to a state that is none of the {num_states}"
        if num_arcs and self.labels.min() < 0:
            return f"label {self.labels.min()} is below 0"
        if not np.isfinite(self.scores).all():
            return "the score of an arc is not a number"
        if np.isnan(self.final_scores).any() or (self.final_scores == np.inf).any():
            return "the score of a final state is not a number"
        return ""


def trivial_graph(vocab_size: int) -> DecodingGraph:
    """The graph that allows every token at any time and prefers none.

    Args:
        vocab_size: V, blank (0) included; tokens 1 to V - 1 may follow one another freely.

    Example:
        >>> trivial_graph(4).labels
        array([1, 2, 3], dtype=int32)
    """
    num_arcs = vocab_size - 1
    return _from_arcs(
        np.zeros(num_arcs, dtype=np.int64),
        np.zeros(num_arcs, dtype=np.int64),
        np.arange(1, vocab_size),
        np.zeros(num_arcs, dtype=np.float32),
        [[]] * num_arcs,
        np.zeros(1, dtype=np.float32),
    )


def graph_from_k2_arcs(
    arcs: npt.NDArray[np.integer],
    scores: _Float32,
    word_splits: npt.NDArray[np.integer] | None = None,
    words: npt.NDArray[np.integer] | None = None,
) -> DecodingGraph:
    """The graph of an FSA in k2's form, whose last state is the only final one.

    Args:
        arcs: (A, 3): source, destination, label. Label -1 leads into the last state.
        scores: (A,) natural logs.
        word_splits: (A + 1,) and
        words: the arcs' words (k2's ragged aux_labels); values of 0 and below are no words.

    Raises:
        DataError: arcs that k2 would not allow either.
    """
    arcs = np.asarray(arcs, dtype=np.int64).reshape(-1, 3)
    scores = np.asarray(scores, dtype=np.float32)
    if word_splits is None or words is None:
        word_splits, words = np.zeros(len(arcs) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not len(arcs) == len(scores) == len(word_splits) - 1:
        raise DataError(
            f"{len(arcs)} arcs, {len(scores)} scores and words of {len(word_splits) - 1} arcs"
        )
    src, dst, labels = arcs.T
    final_state = max(src.max(initial=0) + 1, dst.max(initial=0))
    is_final = labels == -1
    if not np.array_equal(is_final, dst == final_state) or (src < 0).any():
        raise DataError(
            "arcs of label -1, and no others, must lead into the last state",
            "give the arcs of a k2 FSA, which all have this form",
        )
    final_scores = np.full(final_state, -np.inf, dtype=np.float32)
    np.maximum.at(final_scores, src[is_final], scores[is_final])
    rows = [
        [word for word in words[begin:end].tolist() if word > 0]
        for begin, end in pairwise(word_splits.tolist())
    ]
    kept = np.flatnonzero(~is_final)
    return _from_arcs(
        src[kept], dst[kept], labels[kept], scores[kept], [rows[a] for a in kept], final_scores
    )


def read_fst_text(
    path: str | Path,
    *,
    token_to_id: Mapping[str, int] | None = None,
    word_to_id: Mapping[str, int] | None = None,
) -> DecodingGraph:
    """Read a transducer in OpenFst's text form: input labels are tokens, output labels words.

    Lines are `source destination token word [cost]`, and `state [cost]` for a state where an
    utterance may end; the source of the first line is the start. Costs are -ln(p), 0 if left out.

    Args:
        path: the file.
        token_to_id: the vocabulary, for files that hold symbols. A column whose every entry is an
            integer is taken as ids.
        word_to_id: the word list, likewise.

    Raises:
        DataError: missing, or a line that cannot be read: the message names it.
    """
    path = require_file(path, "graph", error=DataError)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"graph {path} is not a text file", _TEXT_HINT) from None
    arcs: list[tuple[int, list[str]]] = []
    finals: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) in (4, 5):
            arcs.append((number, fields))
        elif len(fields) in (1, 2):
            finals.append((number, fields))
        elif fields:
            raise DataError(f"{path}, line {number}: {len(fields)} fields", _TEXT_HINT)
    if not arcs and not finals:
        raise DataError(f"graph {path} is empty", _TEXT_HINT)

    def place(number: int) -> str:
        return f"{path}, line {number}"

    src = np.array([_integer(fields[0], place(n)) for n, fields in arcs], dtype=np.int64)
    dst = np.array([_integer(fields[1], place(n)) for n, fields in arcs], dtype=np.int64)
    final_states = [_integer(fields[0], place(n)) for n, fields in finals]
    labels = _ids([(place(n), fields[2]) for n, fields in arcs], token_to_id, "token")
    words = _ids([(place(n), fields[3]) for n, fields in arcs], word_to_id, "word")
    costs = [_cost(fields[4:], place(n)) for n, fields in arcs]

    num_states = 1 + max([*src.tolist(), *dst.tolist(), *final_states])
    final_scores = np.full(num_states, -np.inf, dtype=np.float32)
    for state, (n, fields) in zip(final_states, finals, strict=True):
        final_scores[state] = -_cost(fields[1:], place(n))

    # The start becomes state 0: the two change names.
    first_line = min([*arcs[:1], *finals[:1]])
    start = _integer(first_line[1][0], place(first_line[0]))
    new_name = np.arange(num_states)
    new_name[[0, start]] = new_name[[start, 0]]
    is_kept = np.isfinite(costs)  # an arc of infinite cost is no arc
    return _from_arcs(
        new_name[src][is_kept],
        new_name[dst][is_kept],
        labels[is_kept],
        -np.array(costs, dtype=np.float32)[is_kept],
        [[word] if word else [] for word in words[is_kept].tolist()],
        final_scores[new_name],
    )


_TEXT_HINT: Final = (
    "lines are `source destination token word [cost]` and `state [cost]`, as fstprint writes them"
)


def _from_arcs(
    src: _Int64,
    dst: _Int64,
    labels: _Int64,
    scores: _Float32,
    words: Sequence[Sequence[int]],
    final_scores: _Float32,
) -> DecodingGraph:
    """A graph of arcs in any order; those of a state stay in the order given."""
    order = np.argsort(src, kind="stable")
    num_states = len(final_scores)
    return DecodingGraph(
        row_splits=np.searchsorted(src[order], np.arange(num_states + 1)),
        dst=dst[order].astype(np.int32),
        labels=labels[order].astype(np.int32),
        scores=scores[order],
        word_splits=np.cumsum([0] + [len(words[a]) for a in order]),
        words=np.array([word for a in order for word in words[a]], dtype=np.int32),
        final_scores=final_scores,
    )


def _integer(field: str, where: str) -> int:
    if not field.isascii() or not field.isdigit():
        raise DataError(f"{where}: {field!r} is not the number of a state", _TEXT_HINT)
    return int(field)


def _cost(fields: Sequence[str], where: str) -> float:
    """The cost at the end of a line; 0 if there is none."""
    if not fields:
        return 0.0
    try:
        cost = float(fields[0])
    except ValueError:
        raise DataError(f"{where}: {fields[0]!r} is not a cost", _TEXT_HINT) from None
    if np.isnan(cost) or cost == -np.inf:
        raise DataError(f"{where}: {fields[0]!r} is not a cost", _TEXT_HINT)
    return cost


def _ids(column: list[tuple[str, str]], table: Mapping[str, int] | None, what: str) -> _Int64:
    """Ids of one column of labels."""
    if all(field.isascii() and field.isdigit() for _, field in column):
        return np.array([int(field) for _, field in column], dtype=np.int64)
    if table is None:
        where, field = next((w, f) for w, f in column if not (f.isascii() and f.isdigit()))
        raise DataError(f"{where}: {field!r} is not a {what} id, and no list of {what}s is given")
    ids = []
    for where, field in column:
        # Whatever the table calls it, this is how OpenFst prints epsilon.
        if field not in table and field not in ("<eps>", "<blk>"):
            raise DataError(f"{where}: the {what} {field!r} is not in the list of {what}s")
        ids.append(table.get(field, 0))
    return np.array(ids, dtype=np.int64)


def _checksum(path: Path) -> str:
    file = require_file(path, "file", error=DataError)
    return hashlib.sha256(file.read_bytes()).hexdigest()
