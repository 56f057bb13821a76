"""How is an utterance varied from epoch to epoch? SpecAugment, and the generator all draws use.

Invariant: pure functions of features and a generator; the generator is a function of (seed, epoch,
utterance id, purpose), so no result depends on batch mates, workers, or the order of calls.

Source: lhotse, lhotse/dataset/signal_transforms.py (SpecAugment; Park et al. 2019). One deliberate
difference: lhotse masks the padded row, so padding enters the mask value and catches masks; here
each utterance is masked over its own frames, and T < 7 does not raise.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from snowmelt.core.errors import ConfigError

__all__ = ["SpecAugmentConfig", "spec_augment", "utterance_rng"]


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Strength of SpecAugment; the defaults are the Zipformer recipe's."""

    time_warp_factor: int = 80  # feature frames; 0 switches warping off
    num_frame_masks: int = 10
    frames_mask_size: int = 100  # widest mask over time, feature frames
    num_feature_masks: int = 2
    features_mask_size: int = 27  # masks over frequency are narrower than this, mel bins
    max_frames_mask_fraction: float = 0.15
    p: float = 0.9  # of warping, and independently of masking

    def __post_init__(self) -> None:
        if self.frames_mask_size < 1 or self.features_mask_size < 1:
            raise ConfigError(
                f"masks of {self.frames_mask_size} frames and {self.features_mask_size} bins are "
                "empty",
                "switch masks off with num_frame_masks 0 or num_feature_masks 0",
            )
        for name in ("p", "max_frames_mask_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must lie in [0, 1]")


def utterance_rng(seed: int, epoch: int, utterance_id: str, purpose: str) -> random.Random:
    """The generator for one purpose and one utterance in one epoch."""
    # A text seeds by its SHA-512, so neighbouring epochs and ids share nothing.
    return random.Random(f"{seed} {epoch} {purpose} {utterance_id}")


def spec_augment(
    features: npt.NDArray[np.float32],
    rng: random.Random,
    config: SpecAugmentConfig,
) -> npt.NDArray[np.float32]:
    """Warp in time, then mask bands of frequency and stretches of time.

    Args:
        features: (T, F) float32 of one utterance without padding; any T >= 1.
        rng: source of all draws.
        config: strength.

    Returns:
        (T, F) float32; `features` itself when nothing was drawn.
    """
    if rng.random() < config.p:
        features = _warp_time(features, rng, config.time_warp_factor)
    if rng.random() < config.p:
        features = _mask(features, rng, config)
    return features


def _warp_time(
    features: npt.NDArray[np.float32], rng: random.Random, factor: int
) -> npt.NDArray[np.float32]:
    num_frames = len(features)
    if factor < 1 or num_frames - factor <= factor + 1:
        return features
    center = rng.randrange(factor + 1, num_frames - factor)
    warped = rng.randrange(center - factor, center + factor + 1)
    if warped == center:
        return features
    parts = ((features[:center], warped), (features[center:], num_frames - warped))
    return np.concatenate([_resized(part, length) for part, length in parts])


def _resized(part: npt.NDArray[np.float32], num_frames: int) -> npt.NDArray[np.float32]:
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(part)[None, None],  # (1, 1, T, F)
        size=(num_frames, part.shape[1]),
        mode="bicubic",
        align_corners=False,
    )
    result: npt.NDArray[np.float32] = resized[0, 0].numpy()
    return result


def _mask(
    features: npt.NDArray[np.float32], rng: random.Random, config: SpecAugmentConfig
) -> npt.NDArray[np.float32]:
    num_frames, num_bins = features.shape
    value = features.mean()
    masked = features.copy()
    for _ in range(config.num_feature_masks):
        width = rng.randrange(min(config.features_mask_size, num_bins + 1))
        start = int(rng.random() * (num_bins - width))
        masked[:, start : start + width] = value
    budget = config.max_frames_mask_fraction * num_frames
    num_masks = min(config.num_frame_masks, math.ceil(budget / config.frames_mask_size))
    widest = min(config.frames_mask_size, int(budget // num_masks)) if num_masks else 0
    if widest < 1:  # too few frames for a mask of even one
        return masked
    for _ in range(num_masks):
        width = rng.randrange(widest)
        start = int(rng.random() * (num_frames - width))
        masked[start : start + width] = value
    return masked
