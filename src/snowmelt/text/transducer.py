"""How is a transducer kept while graphs are made from it: labels in, labels out, scores?

Invariant: plain arrays, never changed after they were made; the arcs of a state lie together.
Scores are natural logarithms (larger is better), negated in files, which hold costs. Label 0 is
epsilon on both sides.

Source: OpenFst's text form, as kaldilm writes it.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.core.files import atomic_path
from snowmelt.text.symbols import read_lines

__all__ = ["Transducer", "transducer_from_arcs"]


@dataclass(frozen=True, eq=False)
class Transducer:
    """A weighted transducer of S states and A arcs.

    Attributes:
        start: the state where paths begin.
        row_splits: (S + 1,) int64; arcs of state s are row_splits[s] to row_splits[s + 1].
        dst: (A,) int32, state an arc leads to.
        ilabels: (A,) int32, label it reads.
        olabels: (A,) int32, label it writes.
        scores: (A,) float32, natural log.
        final_scores: (S,) float32, natural log of ending in a state; -inf where none may end.
    """

    start: int
    row_splits: npt.NDArray[np.int64]
    dst: npt.NDArray[np.int32]
    ilabels: npt.NDArray[np.int32]
    olabels: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    final_scores: npt.NDArray[np.float32]

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.final_scores)

    @property
    def num_arcs(self) -> int:
        """A."""
        return len(self.dst)

    @property
    def src(self) -> npt.NDArray[np.int64]:
        """(A,) state an arc leaves."""
        return np.repeat(np.arange(self.num_states), np.diff(self.row_splits))

    def write_text(self, path: str | Path) -> None:
        """Write OpenFst's text form: the start first, six significant digits as kaldilm has them.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as stream:
            stream.writelines(self._lines())

    @staticmethod
    def read_text(path: str | Path) -> "Transducer":
        """Read OpenFst's text form with numbers for labels; states keep their numbers.

        Raises:
            DataError: missing, empty, or a line of another form; the message names it.
        """
        ends, labels, costs = array("i"), array("i"), array("d")
        final_states, final_costs = array("i"), array("d")
        start = None
        for number, line in read_lines(path, "grammar"):
            fields = line.split()
            try:
                if len(fields) in (4, 5):
                    numbers = [int(field) for field in fields[:4]]
                    ends.extend(numbers[:2])
                    labels.extend(numbers[2:])
                    costs.append(float(fields[4]) if len(fields) == 5 else 0.0)
                elif len(fields) in (1, 2):
                    numbers = [int(fields[0])]
                    final_states.append(numbers[0])
                    final_costs.append(float(fields[1]) if len(fields) == 2 else 0.0)
                elif not fields:
                    continue
                else:
                    raise ValueError
                if min(numbers) < 0:
                    raise ValueError
            except (ValueError, OverflowError):
                raise DataError(
                    f"grammar {path} line {number} is {line.strip()[:60]!r}",
                    "lines must be 'state state label label cost' or 'state cost', in numbers",
                ) from None
            start = numbers[0] if start is None else start
        if start is None:
            raise DataError(f"grammar {path} is empty")
        src, dst = np.array(ends, dtype=np.int32).reshape(-1, 2).T
        ilabels, olabels = np.array(labels, dtype=np.int32).reshape(-1, 2).T
        num_states = 1 + max([start, src.max(initial=0), dst.max(initial=0), *final_states])
        final_scores = np.full(num_states, -np.inf, dtype=np.float32)
        final_scores[np.array(final_states, dtype=np.int32)] = -np.array(final_costs)
        return transducer_from_arcs(
            start, src, dst, ilabels, olabels, -np.array(costs), final_scores
        )

    def _lines(self) -> Iterator[str]:
        states = [self.start, *(s for s in range(self.num_states) if s != self.start)]
        splits = self.row_splits.tolist()
        for state in states:
            begin, end = splits[state], splits[state + 1]
            arcs = zip(
                self.dst[begin:end].tolist(),
                self.ilabels[begin:end].tolist(),
                self.olabels[begin:end].tolist(),
                self.scores[begin:end].tolist(),
                strict=True,
            )
            for dst, ilabel, olabel, score in arcs:
                yield f"{state}\t{dst}\t{ilabel}\t{olabel}{_cost(score)}\n"
            final_score = float(self.final_scores[state])
            if final_score != -np.inf:
                yield f"{state}{_cost(final_score)}\n"


def transducer_from_arcs(
    start: int,
    src: npt.NDArray[np.integer],
    dst: npt.NDArray[np.integer],
    ilabels: npt.NDArray[np.integer],
    olabels: npt.NDArray[np.integer],
    scores: npt.NDArray[np.floating],
    final_scores: npt.NDArray[np.floating],
) -> Transducer:
    """A transducer of arcs in any order; those of a state stay in the order given.

    Args:
        start: a state.
        src: (A,) states the arcs leave.
        dst: (A,) states they lead to.
        ilabels: (A,) labels they read.
        olabels: (A,) labels they write.
        scores: (A,) natural logs.
        final_scores: (S,) natural logs, -inf where no path may end.
    """
    order = np.argsort(src, kind="stable")
    row_splits = np.zeros(len(final_scores) + 1, dtype=np.int64)
    np.cumsum(np.bincount(src, minlength=len(final_scores)), out=row_splits[1:])
    return Transducer(
        start=start,
        row_splits=row_splits,
        dst=dst[order].astype(np.int32),
        ilabels=ilabels[order].astype(np.int32),
        olabels=olabels[order].astype(np.int32),
        scores=scores[order].astype(np.float32),
        final_scores=final_scores.astype(np.float32),
    )


def _cost(score: float) -> str:
    return f"\t{-score:.6g}" if score != 0.0 else ""
