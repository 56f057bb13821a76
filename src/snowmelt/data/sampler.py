"""Which utterances form a batch, and in which order do the batches come?

All durations are known, so the whole list of an epoch's batches is computed at once: resuming at
batch b is a slice. Similar durations go together; the order is shuffled, the sizes are not.

Invariant: the list is a function of (durations, settings, seed, epoch); every utterance occurs in
each epoch exactly once, except where `batches` says otherwise for several ranks.

Source of the rules: lhotse, lhotse/dataset/sampling/dynamic_bucketing.py (buckets of equal time,
limit on padded seconds, ranks in step). Of a corpus in shards only a few are read at a time: shards
come in a new order in every epoch, and utterances are shuffled among those that stand together.
There every bucket's leftovers of a buffer are dropped, and
a small corpus may have no batch at all. Here at most one batch of an epoch is not full, so nothing
is gained by leaving utterances out, and `drop_last` is off unless it is asked for.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError

__all__ = ["DurationBatchSampler"]

# Shards that are read at the same time: some thousand utterances to draw a batch from.
_SHARDS_AT_ONCE: Final = 8

# Keeps the permutations apart from other users of the same seed.
_STREAM: Final = 0x5A3B


class DurationBatchSampler:
    """Batches of utterance indices, limited in padded seconds.

    Args:
        durations: seconds of each utterance.
        max_duration: limit of (utterances in the batch) x (longest of them), seconds; an utterance
            longer than this is a batch of its own.
        shuffle: new batches for every epoch; else sorted by duration, longest first.
        seed: seed of the run.
        shards: name of each utterance's shard; None: utterances lie anywhere. Has no meaning when
            not shuffling.
        num_buckets: classes of similar duration, equal in total time; more classes, less padding
            and less variety.
        has_buckets: whether similar durations go together; else any utterances, or when not
            shuffling, neighbours in the order given.
        drop_last: leave out the batch that is not full because the utterances have run out, and
            as many batches as are too many for a number that all ranks can share; never all.
        world_size: number of processes that train together.
        rank: number of this process.
        has_equal_ranks: whether all ranks must get equally many batches, as training needs it:
            where there are fewer utterances than places, some are given twice. None: when
            shuffling.

    Raises:
        DataError: no utterances, a duration that is not positive, an impossible limit.
    """

    def __init__(
        self,
        durations: Sequence[float],
        max_duration: float,
        *,
        shuffle: bool = True,
        seed: int = 42,
        shards: Sequence[str] | None = None,
        num_buckets: int = 30,
        has_buckets: bool = True,
        drop_last: bool = False,
        world_size: int = 1,
        rank: int = 0,
        has_equal_ranks: bool | None = None,
    ) -> None:
        self._durations = np.asarray(durations, np.float64)
        if self._durations.size == 0:
            raise DataError("there are no utterances to make batches of")
        if not (self._durations > 0).all():
            worst = int(np.argmin(np.nan_to_num(self._durations, nan=-np.inf)))
            raise DataError(f"utterance {worst} has duration {self._durations[worst]}")
        if max_duration <= 0 or num_buckets < 1 or not 0 <= rank < world_size:
            raise DataError(
                f"no batches with max_duration {max_duration}, num_buckets {num_buckets}, "
                f"rank {rank} of {world_size}"
            )
        self._max_duration = max_duration
        self._shuffle = shuffle
        self._seed = seed
        self._has_buckets = has_buckets
        self._drop_last = drop_last
        self._world_size = world_size
        self._rank = rank
        self._has_equal_ranks = shuffle if has_equal_ranks is None else has_equal_ranks
        self._shards: npt.NDArray[np.int64] | None = None
        if shards is not None:
            self._shards = np.unique(np.asarray(shards), return_inverse=True)[1]
        self._buckets = _equal_time_buckets(self._durations, num_buckets)

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch, in order; resume with `batches(epoch)[done:]`.

        All ranks get equally many batches, about equally long at the same position. For that,
        batches with the most utterances are halved until the number fits; only when there are
        fewer utterances than needed are some given twice (`has_equal_ranks`) or is the last
        position left to the first ranks.
        """
        rng = np.random.default_rng((_STREAM, self._seed, epoch)) if self._shuffle else None
        windows = self._windows(rng)
        order = self._order(rng)
        if windows is not None:
            order = order[np.argsort(windows[order], kind="stable")]
        batches = self._pack(order, windows)
        if self._drop_last:
            batches = self._complete(batches, rng)
        steps = self._steps(batches)
        if rng is not None:
            mixed = rng.permutation(len(steps))
            if windows is not None:
                # A step at a border belongs where it begins.
                of_step = np.array([windows[step[0][0]] for step in steps])
                mixed = mixed[np.argsort(of_step[mixed], kind="stable")]
            steps = [steps[i] for i in mixed]
        return [step[self._rank] for step in steps if self._rank < len(step)]

    def _windows(self, rng: np.random.Generator | None) -> npt.NDArray[np.int64] | None:
        """Of each utterance, with which others it is read, counted in the order of reading."""
        if self._shards is None or rng is None:
            return None
        place = rng.permutation(int(self._shards.max()) + 1)
        windows: npt.NDArray[np.int64] = place[self._shards] // _SHARDS_AT_ONCE
        return windows

    def _order(self, rng: np.random.Generator | None) -> npt.NDArray[np.int64]:
        """All indices, bucket by bucket (longest first), shuffled inside each bucket."""
        if not self._has_buckets:
            num = len(self._durations)
            return np.arange(num) if rng is None else rng.permutation(num)
        if rng is None:
            return np.argsort(-self._durations, kind="stable")
        return np.lexsort((rng.permutation(len(self._durations)), -self._buckets))

    def _pack(
        self, order: npt.NDArray[np.int64], windows: npt.NDArray[np.int64] | None
    ) -> list[list[int]]:
        # No border between buckets: what remains of one starts the next one's first batch.
        batches: list[list[int]] = []
        longest = 0.0
        for index in order.tolist():
            duration = float(self._durations[index])
            longest = max(longest, duration)
            is_near = not batches or windows is None or windows[index] == windows[batches[-1][0]]
            if batches and is_near and (len(batches[-1]) + 1) * longest <= self._max_duration:
                batches[-1].append(index)
            else:
                batches.append([index])
                longest = duration
        return batches

    def _complete(
        self, batches: list[list[int]], rng: np.random.Generator | None
    ) -> list[list[int]]:
        """The batches without the one that is not full, and without those in excess."""
        last = batches[-1]
        padded = (len(last) + 1) * float(self._durations[last].max())
        if len(batches) > 1 and padded <= self._max_duration:
            batches = batches[:-1]
        num_kept = len(batches) - len(batches) % self._world_size
        if not 0 < num_kept < len(batches):
            return batches
        # Not always the last ones, which are the shortest.
        order = range(len(batches)) if rng is None else rng.permutation(len(batches)).tolist()
        return [batches[n] for n in sorted(order[:num_kept])]

    def _steps(self, batches: list[list[int]]) -> list[list[list[int]]]:
        """Neighbouring batches, one per rank, in groups."""
        while len(batches) % self._world_size:
            largest = max(range(len(batches)), key=lambda n: len(batches[n]))
            batch = batches[largest]
            if len(batch) == 1:
                break
            batches[largest : largest + 1] = [batch[0::2], batch[1::2]]
        missing = -len(batches) % self._world_size
        if self._has_equal_ranks:
            batches = batches + [batches[n % len(batches)] for n in range(missing)]
        return [batches[n : n + self._world_size] for n in range(0, len(batches), self._world_size)]


def _equal_time_buckets(
    durations: npt.NDArray[np.float64], num_buckets: int
) -> npt.NDArray[np.int64]:
    """Number of the bucket of each utterance; buckets hold equal time, not equal counts."""
    order = np.argsort(durations, kind="stable")
    elapsed = np.cumsum(durations[order])
    buckets = np.empty(len(durations), np.int64)
    # An utterance belongs where its middle falls.
    middle = elapsed - durations[order] / 2
    buckets[order] = np.minimum(middle / elapsed[-1] * num_buckets, num_buckets - 1)
    return buckets
