"""Which corpus does each step of an epoch learn from, and which of its batches?

One corpus is the main one: an epoch is over when its last batch has been used. The others have
epochs of their own, one after the other without an end, and go on where the last main epoch left
them.

Invariant: the corpus of step s is a function of (seed, s) alone, so all ranks agree without
talking; a plan is a function of its arguments, so that resuming is a slice of it.

Source of the rules: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/train.py; there the
draws come from one generator that a resumed run begins anew.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import ConfigError, DataError

__all__ = ["CorpusBatches", "MixItem", "MixPlan", "corpora_of_steps", "plan_epoch"]

# Keeps the draws apart from other users of the same seed.
_STREAM: Final = 0x4D17
# Draws made at a time; of no meaning, since each depends on its own number alone.
_BLOCK: Final = 4096
# A counter gives four numbers; the first is used.
_NUMBERS_PER_COUNT: Final = 4


class CorpusBatches:
    """The batches of one corpus, epoch by epoch; those of the last epoch asked for are kept.

    Args:
        name: the corpus, as positions and messages name it.
        batches_of: the batches of an epoch (counted from 1) for this rank; equally many on all.
    """

    def __init__(self, name: str, batches_of: Callable[[int], list[list[int]]]) -> None:
        self.name = name
        self._batches_of = batches_of
        self._epoch = 0
        self._batches: list[list[int]] = []

    def batches(self, epoch: int) -> list[list[int]]:
        """Lists of utterance indices of an epoch, counted from 1."""
        if epoch != self._epoch:
            self._batches, self._epoch = self._batches_of(epoch), epoch
        return self._batches


class MixItem(NamedTuple):
    """A batch of one corpus."""

    stream: int  # number of the corpus, 0 the main one
    epoch: int  # the corpus's own epoch, from 1
    indices: list[int]  # its utterances


@dataclass(frozen=True)
class MixPlan:
    """What an epoch learns from, step by step.

    Attributes:
        steps: the batches of each step, all of one corpus.
        positions: where the other corpora stand after the epoch: their own epoch and how many of
            its batches are used; what the next epoch's plan begins with.
    """

    steps: list[tuple[MixItem, ...]]
    positions: dict[str, tuple[int, int]]


def plan_epoch(
    streams: Sequence[CorpusBatches],
    probabilities: Sequence[float],
    *,
    seed: int,
    epoch: int,
    first_step: int,
    positions: Mapping[str, tuple[int, int]],
    micro_batches: int = 1,
) -> MixPlan:
    """All steps of a main epoch.

    Args:
        streams: the corpora, the main one first.
        probabilities: of a step to be of each corpus; they add up to 1.
        seed: seed of the run.
        epoch: number of the main epoch, from 1.
        first_step: steps of the run before this epoch.
        positions: where the other corpora stood after the epoch before; an unnamed one begins.
        micro_batches: batches in a step, for accumulated gradients; the epoch's last step of the
            main corpus has what is left.

    Returns:
        The plan; its steps end with the one that uses the main corpus's last batch.

    Raises:
        ConfigError: the probabilities are none, or that of the main corpus is 0.
        DataError: a corpus that is drawn has an epoch without batches.
    """
    _check(streams, probabilities, micro_batches)
    main = streams[0].batches(epoch)
    others = [_Cursor(n, stream, positions) for n, stream in enumerate(streams) if n > 0]
    steps: list[tuple[MixItem, ...]] = []
    used = 0
    while used < len(main):
        drawn = corpora_of_steps(probabilities, seed, first_step + len(steps), _BLOCK)
        for corpus in drawn.tolist():
            if corpus > 0:
                steps.append(tuple(others[corpus - 1].take() for _ in range(micro_batches)))
                continue
            step = main[used : used + micro_batches]
            steps.append(tuple(MixItem(0, epoch, indices) for indices in step))
            used += len(step)
            if used == len(main):
                break
    return MixPlan(steps, {cursor.name: cursor.position for cursor in others})


def corpora_of_steps(
    probabilities: Sequence[float], seed: int, first_step: int, num_steps: int
) -> npt.NDArray[np.int64]:
    """Number of the corpus that each of some steps learns from.

    Args:
        probabilities: as for `plan_epoch`.
        seed: seed of the run.
        first_step: number of the first step.
        num_steps: how many steps.

    Returns:
        (num_steps,) int64.
    """
    # A counter-based generator: number s can be had without those before it.
    bits = np.random.Philox(
        key=np.array([seed, _STREAM], np.uint64), counter=np.array([first_step, 0, 0, 0], np.uint64)
    )
    raw = bits.random_raw(_NUMBERS_PER_COUNT * num_steps)[::_NUMBERS_PER_COUNT]
    uniform = (raw >> np.uint64(11)) * 2.0**-53
    borders = np.cumsum(probabilities)[:-1]
    return np.searchsorted(borders, uniform, side="right").astype(np.int64)


class _Cursor:
    """Where a corpus stands that never ends."""

    def __init__(
        self, number: int, stream: CorpusBatches, positions: Mapping[str, tuple[int, int]]
    ) -> None:
        self._number = number
        self._stream = stream
        self._epoch, self._batch = positions.get(stream.name, (1, 0))

    @property
    def name(self) -> str:
        return self._stream.name

    @property
    def position(self) -> tuple[int, int]:
        return self._epoch, self._batch

    def take(self) -> MixItem:
        """The next batch."""
        batches = self._stream.batches(self._epoch)
        if self._batch >= len(batches):
            self._epoch, self._batch = self._epoch + 1, 0
            batches = self._stream.batches(self._epoch)
        if not batches:
            raise DataError(f"{self.name} has no batches in its epoch {self._epoch}")
        self._batch += 1
        return MixItem(self._number, self._epoch, batches[self._batch - 1])


def _check(
    streams: Sequence[CorpusBatches], probabilities: Sequence[float], micro_batches: int
) -> None:
    if not streams or len(streams) != len(probabilities) or micro_batches < 1:
        raise ConfigError(
            f"no plan for {len(streams)} corpora with {len(probabilities)} probabilities and "
            f"{micro_batches} batches a step"
        )
    shown = ", ".join(f"{s.name} {p:g}" for s, p in zip(streams, probabilities, strict=True))
    if not all(0.0 <= p <= 1.0 for p in probabilities) or not math.isclose(
        sum(probabilities), 1.0, abs_tol=1e-6
    ):
        raise ConfigError(f"{shown}: these are no probabilities that add up to 1")
    if probabilities[0] == 0.0:
        raise ConfigError(
            f"{shown}: the main corpus must have a probability above 0",
            "an epoch would never end",
        )
