"""SpecAugment: any length, bounded masks, warping that keeps order, one generator each."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.core.errors import ConfigError
from snowmelt.data.augment import SpecAugmentConfig, spec_augment, utterance_rng

_MASKS_ONLY = SpecAugmentConfig(time_warp_factor=0, p=1.0)
_WARP_ONLY = SpecAugmentConfig(num_frame_masks=0, num_feature_masks=0, p=1.0)


def _noise(num_frames: int) -> np.ndarray:
    return np.random.default_rng(num_frames).standard_normal((num_frames, 80)).astype(np.float32)


def test_generators_depend_on_everything_they_are_given() -> None:
    draws = {
        utterance_rng(*arguments).random()
        for arguments in [
            (0, 0, "a", "tail"),
            (1, 0, "a", "tail"),
            (0, 1, "a", "tail"),
            (0, 0, "b", "tail"),
            (0, 0, "a", "spec_augment"),
        ]
    }
    assert len(draws) == 5
    assert utterance_rng(0, 0, "a", "tail").random() in draws


@settings(deadline=None, derandomize=True)
@given(num_frames=st.integers(1, 400), seed=st.integers(0, 1000))
def test_any_length_and_the_input_stays_as_it_was(num_frames: int, seed: int) -> None:
    features = _noise(num_frames)
    before = features.copy()
    augmented = spec_augment(features, random.Random(seed), SpecAugmentConfig())
    assert augmented.shape == features.shape and augmented.dtype == np.float32
    assert np.isfinite(augmented).all()
    assert np.array_equal(features, before)
    again = spec_augment(features, random.Random(seed), SpecAugmentConfig())
    assert np.array_equal(augmented, again)


@settings(deadline=None, derandomize=True)
@given(num_frames=st.integers(1, 2500), seed=st.integers(0, 1000))
def test_masks_keep_within_their_budget(num_frames: int, seed: int) -> None:
    features = _noise(num_frames)
    augmented = spec_augment(features, random.Random(seed), _MASKS_ONLY)
    masked = augmented == features.mean()
    assert np.array_equal(augmented[~masked], features[~masked])
    frames, bins = masked.all(axis=1), masked.all(axis=0)
    assert np.array_equal(masked, frames[:, None] | bins)
    assert frames.sum() <= 0.15 * num_frames
    assert bins.sum() <= 2 * 26


def test_masks_of_a_long_utterance_are_many() -> None:
    # 2,000 frames: budget 300, so 3 masks of fewer than 100 frames each.
    counts = []
    features = _noise(2000)
    for seed in range(100):
        augmented = spec_augment(features, random.Random(seed), _MASKS_ONLY)
        counts.append((augmented == features.mean()).all(axis=1).sum())
    assert max(counts) > 198  # more than two masks can hold
    assert np.mean(counts) == pytest.approx(3 * 49.5, rel=0.1)


def test_warping_stretches_one_part_and_shrinks_the_other() -> None:
    num_frames = 300
    ramp = np.repeat(np.arange(num_frames, dtype=np.float32)[:, None], 80, axis=1)
    shifts = []
    for seed in range(100):
        warped = spec_augment(ramp, random.Random(seed), _WARP_ONLY)[:, 0]
        assert (np.diff(warped) > -0.5).all()  # cubic interpolation may overshoot a little
        assert warped.shape == (num_frames,)
        assert warped.min() > -1 and warped.max() < num_frames
        shift = warped - ramp[:, 0]
        shifts.append(shift[np.abs(shift).argmax()])
        assert np.abs(shift).max() <= 81
    assert min(shifts) < -60 and max(shifts) > 60


@pytest.mark.parametrize(("num_frames", "warps"), [(161, False), (162, True)])
def test_short_utterances_are_not_warped(num_frames: int, warps: bool) -> None:
    features = _noise(num_frames)
    changed = [
        not np.array_equal(spec_augment(features, random.Random(seed), _WARP_ONLY), features)
        for seed in range(5)
    ]
    assert any(changed) is warps


def test_p_zero_changes_nothing() -> None:
    features = _noise(300)
    config = SpecAugmentConfig(p=0.0)
    assert spec_augment(features, random.Random(0), config) is features


def test_warping_and_masking_are_drawn_independently() -> None:
    features = _noise(300)
    config = SpecAugmentConfig(p=0.5, num_feature_masks=0, frames_mask_size=100)
    outcomes = {(False, False): 0, (False, True): 0, (True, False): 0, (True, True): 0}
    for seed in range(200):
        augmented = spec_augment(features, random.Random(seed), config)
        is_masked = bool((np.ptp(augmented, axis=1) == 0).any())
        same = (augmented == features).all(axis=1)
        is_warped = not bool(same[~(np.ptp(augmented, axis=1) == 0)].all())
        outcomes[is_warped, is_masked] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    "options", [{"frames_mask_size": 0}, {"features_mask_size": 0}, {"p": 1.5}]
)
def test_impossible_settings(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SpecAugmentConfig(**options)
