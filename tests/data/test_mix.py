"""Epochs over several corpora: shares, order, positions, slices, and one corpus as before."""

from collections import Counter

import numpy as np
import pytest

from snowmelt.core.errors import ConfigError, DataError
from snowmelt.data.mix import CorpusBatches, MixPlan, corpora_of_steps, plan_epoch
from snowmelt.data.sampler import DurationBatchSampler


def _stream(name: str, num_batches: int) -> CorpusBatches:
    """Batch b of epoch e is [100 e + b]; epochs differ in length by one."""
    return CorpusBatches(
        name, lambda epoch: [[100 * epoch + b] for b in range(num_batches + epoch % 2)]
    )


def _plan(
    streams: list[CorpusBatches],
    probabilities: list[float],
    epoch: int = 1,
    first_step: int = 0,
    positions: dict[str, tuple[int, int]] | None = None,
    micro_batches: int = 1,
) -> MixPlan:
    return plan_epoch(
        streams,
        probabilities,
        seed=42,
        epoch=epoch,
        first_step=first_step,
        positions=positions or {},
        micro_batches=micro_batches,
    )


def _of(plan: MixPlan, stream: int) -> list[tuple[int, int]]:
    """Own epoch and only utterance of each batch of a corpus, in order."""
    return [(i.epoch, i.indices[0]) for step in plan.steps for i in step if i.stream == stream]


def test_one_corpus_is_its_own_order_of_batches() -> None:
    sampler = DurationBatchSampler([1.0 + 0.1 * n for n in range(40)], 20.0, seed=1)
    for epoch in (1, 2):
        plan = _plan([CorpusBatches("an4", sampler.batches)], [1.0], epoch, first_step=7)
        assert [[item.indices for item in step] for step in plan.steps] == [
            [batch] for batch in sampler.batches(epoch)
        ]
        assert {(item.stream, item.epoch) for step in plan.steps for item in step} == {(0, epoch)}
        assert plan.positions == {}


def test_the_main_corpus_ends_the_epoch_and_the_others_go_round() -> None:
    plan = _plan([_stream("libri", 10), _stream("giga", 3)], [0.5, 0.5])
    assert _of(plan, 0) == [(1, 100 + b) for b in range(11)]
    assert plan.steps[-1][0].stream == 0
    giga = _of(plan, 1)
    rounds = [(e, 100 * e + b) for e in range(1, 9) for b in range(3 + e % 2)]
    assert len(giga) > 4 and giga == rounds[: len(giga)]
    # What comes next is what the position says.
    epoch, done = plan.positions["giga"]
    assert (epoch, 100 * epoch + done - 1) == giga[-1]


def test_others_go_on_in_the_next_epoch() -> None:
    streams = [_stream("libri", 10), _stream("giga", 3)]
    first = _plan(streams, [0.5, 0.5])
    second = _plan(
        streams, [0.5, 0.5], epoch=2, first_step=len(first.steps), positions=first.positions
    )
    giga = _of(first, 1) + _of(second, 1)
    rounds = [(e, 100 * e + b) for e in range(1, 20) for b in range(3 + e % 2)]
    assert giga == rounds[: len(giga)]
    assert _of(second, 0) == [(2, 200 + b) for b in range(10)]


def test_planning_again_gives_the_same_continuation() -> None:
    # A resumed run makes its streams anew and slices; streams that were used before do not matter.
    used = [_stream("libri", 30), _stream("giga", 7), _stream("other", 5)]
    shares = [0.5, 0.3, 0.2]
    positions = {"giga": (4, 2), "other": (1, 5)}
    whole = _plan(used, shares, epoch=3, first_step=1234, positions=positions)
    fresh = [_stream("libri", 30), _stream("giga", 7), _stream("other", 5)]
    again = _plan(fresh, shares, epoch=3, first_step=1234, positions=positions)
    for step in (0, 1, 17, len(whole.steps)):
        assert again.steps[step:] == whole.steps[step:]
    assert again.positions == whole.positions
    assert positions == {"giga": (4, 2), "other": (1, 5)}


def test_the_corpus_of_a_step_depends_on_seed_and_step_alone() -> None:
    shares = [0.5, 0.5]
    whole = corpora_of_steps(shares, 42, 0, 10000)
    for first in (0, 1, 2, 3, 4095, 4096, 9999):
        assert np.array_equal(corpora_of_steps(shares, 42, first, 1), whole[first : first + 1])
    assert not np.array_equal(corpora_of_steps(shares, 43, 0, 10000), whole)
    # Longer than a block of draws, and from another first step.
    streams = [_stream("libri", 5000), _stream("giga", 100)]
    plan = _plan(streams, shares, first_step=100)
    drawn = corpora_of_steps(shares, 42, 100, len(plan.steps))
    assert len(plan.steps) > 9000
    assert [step[0].stream for step in plan.steps] == drawn.tolist()


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1], [0.2, 0.5, 0.3], [1.0, 0.0]])
def test_shares(shares: list[float]) -> None:
    num_steps = 100000
    counts = Counter(corpora_of_steps(shares, 42, 0, num_steps).tolist())
    for corpus, share in enumerate(shares):
        # Five standard deviations; the seed is fixed.
        deviation = (num_steps * share * (1 - share)) ** 0.5
        assert abs(counts[corpus] - num_steps * share) <= 5 * deviation


def test_neighbouring_draws_are_independent() -> None:
    drawn = corpora_of_steps([0.5, 0.5], 1, 0, 100000)
    pairs = Counter(zip(drawn[:-1].tolist(), drawn[1:].tolist(), strict=True))
    assert all(abs(count - 25000) < 700 for count in pairs.values())


def test_a_step_of_several_batches_is_of_one_corpus() -> None:
    streams = [_stream("libri", 10), _stream("giga", 3)]
    plan = _plan(streams, [0.5, 0.5], micro_batches=4)
    drawn = corpora_of_steps([0.5, 0.5], 42, 0, len(plan.steps))
    assert [{item.stream for item in step} for step in plan.steps] == [{n} for n in drawn.tolist()]
    assert [len(step) for step in plan.steps if step[0].stream == 0] == [4, 4, 3]
    assert {len(step) for step in plan.steps if step[0].stream == 1} == {4}
    assert _of(plan, 0) == [(1, 100 + b) for b in range(11)]
    rounds = [(e, 100 * e + b) for e in range(1, 20) for b in range(3 + e % 2)]
    assert _of(plan, 1) == rounds[: len(_of(plan, 1))]


def test_batches_of_an_epoch_are_made_once() -> None:
    asked = []

    def batches_of(epoch: int) -> list[list[int]]:
        asked.append(epoch)
        return [[0], [1]]

    stream = CorpusBatches("giga", batches_of)
    plan = _plan([_stream("libri", 20), stream], [0.5, 0.5])
    assert asked == list(range(1, plan.positions["giga"][0] + 1))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.0, 1.0], "the main corpus must have a probability above 0"),
        ([0.5, 0.4], "add up to 1"),
        ([1.5, -0.5], "no probabilities"),
        ([float("nan"), 0.5], "no probabilities"),
        ([1.0], "2 corpora with 1 probabilities"),
    ],
)
def test_impossible_shares(shares: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _plan([_stream("libri", 3), _stream("giga", 3)], shares)


def test_a_corpus_without_batches_is_an_error_not_an_endless_loop() -> None:
    empty = CorpusBatches("giga", lambda epoch: [])
    with pytest.raises(DataError, match="giga has no batches in its epoch"):
        _plan([_stream("libri", 20), empty], [0.5, 0.5])
