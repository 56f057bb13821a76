"""Schedules and draws of training."""

import random
from collections import Counter

import pytest
import torch

from snowmelt.models.zipformer.randomness import (
    dropped_layers,
    dynamic_dropout,
    feature_masks,
    flip,
    layer_drop_prob,
    min_bypass_scale,
    random_chunk_size,
    skip_drop_prob,
)


def test_flip_draws_only_if_there_is_something_to_decide() -> None:
    random.seed(0)
    state = random.getstate()
    assert not flip(0.0)
    assert random.getstate() == state
    assert sum(flip(0.3) for _ in range(2000)) == pytest.approx(600, abs=60)


def test_schedules() -> None:
    assert [dynamic_dropout(b) for b in (0, 1000, 2000, 9000)] == pytest.approx([0.2, 0.1, 0, 0])
    assert [min_bypass_scale(b) for b in (0, 10000, 20000, 9e9)] == pytest.approx(
        [0.75, 0.5, 0.25, 0.25]
    )
    assert [skip_drop_prob(b, 4000.0) for b in (0, 2000, 4000, 5000)] == pytest.approx(
        [0.5, 0.2625, 0.025, 0.025]
    )


def test_layer_drop_follows_the_original_with_its_jump() -> None:
    probs = [layer_drop_prob(b, 1000.0, 1500.0) for b in (0, 1, 999, 1000, 1250, 1500, 1501)]
    assert probs == pytest.approx([0.0, 0.5, 0.5, 0.5, 0.425, 0.35, 0.05])


def test_as_many_layers_are_dropped_as_the_probabilities_say() -> None:
    random.seed(0)
    counts: Counter[int] = Counter()
    sizes = []
    for _ in range(3000):
        dropped = dropped_layers([0.5, 0.5, 0.05, 0.25])
        counts.update(dropped)
        sizes.append(len(dropped))
    assert set(sizes) == {1, 2}
    assert sum(sizes) / 3000 == pytest.approx(1.3, abs=0.05)
    # More often those with the higher probability.
    assert counts[0] > counts[3] > counts[2] > 0
    assert dropped_layers([0.0, 0.0]) == set()


def test_chunk_sizes_are_multiples_or_the_whole() -> None:
    random.seed(0)
    sizes = Counter(random_chunk_size(200, 8, 50, 0.75) for _ in range(6000))
    assert set(sizes) == {8, 16, 24, 32, 40, 48, 200}
    # n is one of 1 ... 24 and means the whole above 18.75.
    assert sizes[200] / 6000 == pytest.approx(6 / 24, abs=0.02)
    assert random_chunk_size(15, 8, 50, 0.75) == 15  # the original fails here
    assert random_chunk_size(16, 8, 50, 0.75) == 16


def test_feature_masks_silence_the_same_groups_in_all_stacks() -> None:
    torch.manual_seed(0)
    x = torch.zeros(21, 50, 6)
    masks = feature_masks(x, (6, 6, 8), (4, 6, 5), (1, 2, 4))
    full, none, low = masks
    assert none is None
    assert full is not None and full.shape == (21, 50, 6)
    assert low is not None and low.shape == (6, 50, 8)
    assert (full[..., :4] == 1).all() and (low[..., :5] == 1).all()
    assert torch.equal(full[..., 4], full[..., 5])
    assert torch.equal(full[:, :, 4], low[:, :, 5].repeat_interleave(4, dim=0)[:21])
    assert float(low[..., 5].mean()) == pytest.approx(0.85, abs=0.05)
