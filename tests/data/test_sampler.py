"""Every utterance once per epoch, limits kept, ranks in step, the same list for the same seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.core.errors import DataError
from snowmelt.data.sampler import DurationBatchSampler

_durations = st.lists(st.floats(0.1, 30.0), min_size=1, max_size=60)


@given(durations=_durations, max_duration=st.floats(1.0, 100.0), epoch=st.integers(0, 3))
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_utterance_once_within_the_limit(
    durations: list[float], max_duration: float, epoch: int, shuffle: bool
) -> None:
    sampler = DurationBatchSampler(durations, max_duration, shuffle=shuffle, num_buckets=3)
    batches = sampler.batches(epoch)
    assert batches == sampler.batches(epoch)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(durations)))
    for batch in batches:
        padded = len(batch) * max(durations[i] for i in batch)
        assert padded <= max_duration or len(batch) == 1


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
