"""Every utterance once per epoch, limits kept, ranks in step, the same list for the same seed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.core.errors import DataError
from snowmelt.data.sampler import DurationBatchSampler

_durations = st.lists(st.floats(0.1, 30.0), min_size=1, max_size=60)


@settings(deadline=None, derandomize=True)
@given(durations=_durations, max_duration=st.floats(1.0, 100.0), epoch=st.integers(0, 3))
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("has_buckets", [True, False])
def test_every_utterance_once_within_the_limit(
    durations: list[float], max_duration: float, epoch: int, shuffle: bool, has_buckets: bool
) -> None:
    sampler = DurationBatchSampler(
        durations, max_duration, shuffle=shuffle, num_buckets=3, has_buckets=has_buckets
    )
    batches = sampler.batches(epoch)
    assert batches == sampler.batches(epoch)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(durations)))
    for batch in batches:
        padded = len(batch) * max(durations[i] for i in batch)
        assert padded <= max_duration or len(batch) == 1


@settings(deadline=None, derandomize=True)
@given(
    durations=_durations,
    max_duration=st.floats(1.0, 100.0),
    world_size=st.integers(2, 5),
    shuffle=st.booleans(),
)
def test_ranks_share_an_epoch(
    durations: list[float], max_duration: float, world_size: int, shuffle: bool
) -> None:
    per_rank = [
        DurationBatchSampler(
            durations, max_duration, shuffle=shuffle, world_size=world_size, rank=rank
        ).batches(0)
        for rank in range(world_size)
    ]
    given_out = Counter(i for batches in per_rank for batch in batches for i in batch)
    assert set(given_out) == set(range(len(durations)))
    num_batches = [len(batches) for batches in per_rank]
    if shuffle:
        assert len(set(num_batches)) == 1
    else:
        assert max(num_batches) - min(num_batches) <= 1
    if not shuffle or len(durations) >= world_size * len(per_rank[0]):
        assert set(given_out.values()) == {1}
    else:  # twice only where there are fewer utterances than places
        assert sum(given_out.values()) - len(durations) < world_size


def test_ranks_get_similar_lengths_in_one_step() -> None:
    durations = [1.0 + 0.01 * n for n in range(1000)]
    ranks = [
        DurationBatchSampler(durations, 60.0, world_size=2, rank=rank).batches(0)
        for rank in range(2)
    ]
    for left, right in zip(*ranks, strict=True):
        longest = [max(durations[i] for i in batch) for batch in (left, right)]
        assert max(longest) < 1.35 * min(longest)


def test_epochs_and_seeds_differ() -> None:
    durations = [1.0 + 0.1 * n for n in range(40)]
    sampler = DurationBatchSampler(durations, 20.0, seed=1)
    lists = [
        sampler.batches(0),
        sampler.batches(1),
        DurationBatchSampler(durations, 20.0, seed=2).batches(0),
    ]
    assert lists[0] != lists[1] != lists[2] != lists[0]
    assert DurationBatchSampler(durations, 20.0, seed=1).batches(1) == lists[1]


def test_without_shuffling_the_longest_come_first() -> None:
    sampler = DurationBatchSampler([1.0, 3.0, 2.0], 4.0, shuffle=False)
    assert sampler.batches(0) == sampler.batches(7) == [[1], [2, 0]]


def test_order_without_buckets() -> None:
    durations = [1.0, 3.0, 2.0, 1.0, 1.0]
    in_order = DurationBatchSampler(durations, 4.0, shuffle=False, has_buckets=False)
    assert in_order.batches(0) == in_order.batches(1) == [[0], [1], [2, 3], [4]]
    shuffled = DurationBatchSampler([1.0 + n for n in range(50)], 200.0, has_buckets=False)
    assert shuffled.batches(0) != shuffled.batches(1)
    # Long and short ones meet.
    assert max(max(batch) - min(batch) for batch in shuffled.batches(0)) > 25


def test_incomplete_batches_are_dropped_only_when_asked_for() -> None:
    durations = [1.0] * 10
    whole = DurationBatchSampler(durations, 4.0).batches(0)
    assert sorted(map(len, whole)) == [2, 4, 4]
    complete = DurationBatchSampler(durations, 4.0, drop_last=True).batches(0)
    assert [len(batch) for batch in complete] == [4, 4]
    # A last batch that is full stays, and so does the only one.
    assert len(DurationBatchSampler([1.0] * 8, 4.0, drop_last=True).batches(0)) == 2
    assert DurationBatchSampler([1.0], 4.0, drop_last=True).batches(0) == [[0]]


@settings(deadline=None, derandomize=True)
@given(durations=_durations, world_size=st.integers(1, 4), shuffle=st.booleans())
def test_dropping_leaves_every_rank_whole_batches(
    durations: list[float], world_size: int, shuffle: bool
) -> None:
    def batches(drop_last: bool, size: int, rank: int) -> list[list[int]]:
        return DurationBatchSampler(
            durations,
            40.0,
            shuffle=shuffle,
            drop_last=drop_last,
            world_size=size,
            rank=rank,
            has_equal_ranks=True,
        ).batches(0)

    packed = {tuple(batch) for batch in batches(False, 1, 0)}
    ranks = [batches(True, world_size, rank) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1 and ranks[0]
    if len(packed) > world_size:
        # None was halved, none is given twice.
        given_out = [tuple(batch) for rank in ranks for batch in rank]
        assert set(given_out) <= packed and len(given_out) == len(set(given_out))
        assert len(packed) - len(given_out) <= world_size


def test_dropped_batches_are_not_always_the_shortest() -> None:
    # Each utterance is a batch, the longest first; of seven, two ranks share six.
    durations = [float(n) for n in range(1, 8)]

    def dropped(epoch: int) -> set[int]:
        ranks = [
            DurationBatchSampler(durations, 1.0, drop_last=True, world_size=2, rank=rank)
            for rank in range(2)
        ]
        return set(range(7)) - {i for r in ranks for batch in r.batches(epoch) for i in batch}

    each = [dropped(epoch) for epoch in range(40)]
    assert {len(indices) for indices in each} == {1}
    assert len(set().union(*each)) >= 5


def test_ranks_in_step_without_shuffling() -> None:
    ranks = [
        DurationBatchSampler(
            [3.0, 2.0, 1.0],
            1.0,
            shuffle=False,
            world_size=2,
            rank=rank,
            has_equal_ranks=True,
        ).batches(0)
        for rank in range(2)
    ]
    assert ranks == [[[0], [2]], [[1], [0]]]


def test_buckets_keep_padding_low() -> None:
    durations = [0.5 + 0.03 * (n % 500) for n in range(1000)]
    batches = DurationBatchSampler(durations, 100.0).batches(0)
    padded = sum(len(batch) * max(durations[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(durations)


@pytest.mark.parametrize(
    ("durations", "options", "message"),
    [
        ([], {}, "no utterances"),
        ([1.0, 0.0], {}, "utterance 1 has duration 0.0"),
        ([1.0, float("nan")], {}, "utterance 1 has duration nan"),
        ([1.0], {"max_duration": 0.0}, "max_duration 0.0"),
        ([1.0], {"rank": 1}, "rank 1 of 1"),
    ],
)
def test_impossible_settings(
    durations: list[float], options: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        DurationBatchSampler(durations, **{"max_duration": 10.0, **options})


_shards = st.lists(st.sampled_from([f"shard{n}" for n in range(40)]), min_size=30, max_size=200)


@settings(deadline=None, derandomize=True)
@given(shards=_shards, epoch=st.integers(0, 3), world_size=st.integers(1, 3))
def test_shards_are_read_a_few_at_a_time(shards: list[str], epoch: int, world_size: int) -> None:
    durations = [1.0 + n % 7 for n in range(len(shards))]

    def batches(rank: int, **changes: object) -> list[list[int]]:
        options: dict[str, object] = {"shards": shards, "world_size": world_size, "rank": rank}
        return DurationBatchSampler(durations, 20.0, **{**options, **changes}).batches(epoch)  # type: ignore[arg-type]

    ranks = [batches(rank) for rank in range(world_size)]
    assert ranks == [batches(rank) for rank in range(world_size)]
    given_out = Counter(i for those in ranks for batch in those for i in batch)
    assert set(given_out) == set(range(len(shards)))
    assert sum(given_out.values()) - len(shards) < world_size
    # What has been left is never come back to: at no time are there more than those of two windows.
    seen: list[str] = []
    steps = [[i for batch in step for i in batch] for step in zip(*ranks, strict=True)]
    for step in steps:
        seen += [shards[i] for i in step]
    last = {shard: n for n, shard in enumerate(seen)}
    first = {shard: seen.index(shard) for shard in last}
    for n in range(len(seen)):
        assert sum(first[s] <= n <= last[s] for s in last) <= 16


def test_shards_come_in_a_new_order_and_are_mixed() -> None:
    shards = [f"shard{n // 50}" for n in range(2000)]
    sampler = DurationBatchSampler([1.0 + n % 5 for n in range(2000)], 30.0, shards=shards)
    orders = [[shards[i] for batch in sampler.batches(n) for i in batch] for n in (1, 2)]
    assert list(dict.fromkeys(orders[0])) != list(dict.fromkeys(orders[1]))
    # A batch has utterances of several shards.
    assert max(len({shards[i] for i in batch}) for batch in sampler.batches(1)) > 2
    # Without shuffling there is nothing to hold together.
    plain = DurationBatchSampler([1.0, 3.0, 2.0], 9.0, shuffle=False, shards=["b", "a", "b"])
    assert plain.batches(0) == DurationBatchSampler([1.0, 3.0, 2.0], 9.0, shuffle=False).batches(0)
