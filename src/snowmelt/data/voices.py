"""How does one recording stand for other throats and other microphones?

Vocal tract length perturbation stretches the frequency axis; random filters make bands louder or
softer. Both change the features of a whole utterance at once.

Invariant: pure functions of features and a generator; the number of frames stays as it is.

Source: Jaitly and Hinton, Vocal Tract Length Perturbation improves speech recognition (2013);
Nam, Kim and Park, FilterAugment (2022), its linear form.
"""

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from snowmelt.audio.fbank import FbankConfig, mel_centres
from snowmelt.core.errors import ConfigError

__all__ = ["VoiceAugmentConfig", "augment_voice"]

# Above this share of the highest frequency the stretched axis bends, so that its end stays.
_BEND: Final = 0.8

# A random filter has so many bands; its gains are joined by straight lines.
_MIN_BANDS: Final = 2
_MAX_BANDS: Final = 5

_DB_TO_LOG: Final = float(np.log(10.0)) / 10.0

# A stretch by a quarter makes a child of a man; beyond it speech is no longer speech.
_MAX_WARP: Final = 0.25


@dataclass(frozen=True)
class VoiceAugmentConfig:
    """Strength of the changes; zero switches a change off.

    Attributes:
        vtlp_warp: the factor of frequencies is drawn uniformly from 1 - this to 1 + this.
        filter_db: gains of a random filter are drawn uniformly from - this to + this.

    Raises:
        ConfigError: a value is out of its range.
    """

    vtlp_warp: float = 0.0
    filter_db: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.vtlp_warp <= _MAX_WARP:
            raise ConfigError(
                f"vtlp_warp is {self.vtlp_warp:g}, it must lie in [0, {_MAX_WARP:g}]",
                "0.1 is usual: throats up to a tenth shorter or longer",
            )
        if not self.filter_db >= 0.0:
            raise ConfigError(
                f"filter_augment_db is {self.filter_db:g}, it must not be negative", "6 is usual"
            )


def augment_voice(
    features: npt.NDArray[np.float32],
    rng: random.Random,
    config: VoiceAugmentConfig,
    fbank: FbankConfig,
) -> npt.NDArray[np.float32]:
    """One utterance as another speaker or through another microphone.

    Args:
        features: (T, F) float32, natural logarithms of mel energies.
        rng: source of all draws.
        config: strength.
        fbank: how the features were computed: where the mel bins lie.

    Returns:
        (T, F) float32; `features` itself when everything is off.
    """
    if config.vtlp_warp:
        factor = 1.0 + config.vtlp_warp * rng.uniform(-1.0, 1.0)
        features = _stretched(features, factor, fbank)
    if config.filter_db:
        features = features + _filter_gains(features.shape[1], rng, config.filter_db)
    return features


def _stretched(
    features: npt.NDArray[np.float32], factor: float, fbank: FbankConfig
) -> npt.NDArray[np.float32]:
    """What was at frequency f is at `factor` x f, bent near the top so that the top stays."""
    centres = mel_centres(fbank)  # (F,) Hz
    top = fbank.top_freq
    # The bend keeps the map a line up to where even the stretched axis is below the top.
    bend = _BEND * top / max(factor, 1.0)
    sources = np.interp(centres, [0.0, factor * bend, top], [0.0, bend, top])
    positions = np.interp(sources, centres, np.arange(len(centres), dtype=np.float64))
    lower = np.minimum(positions.astype(np.int64), len(centres) - 2)
    share = (positions - lower).astype(np.float32)
    warped: npt.NDArray[np.float32] = (
        features[:, lower] * (1.0 - share) + features[:, lower + 1] * share
    )
    return warped


def _filter_gains(num_bins: int, rng: random.Random, filter_db: float) -> npt.NDArray[np.float32]:
    """Gains of a random filter in natural logarithms of energy, (F,)."""
    num_bands = rng.randint(_MIN_BANDS, _MAX_BANDS)
    inner = sorted(rng.uniform(0.0, num_bins - 1.0) for _ in range(num_bands - 1))
    edges = [0.0, *inner, num_bins - 1.0]
    gains = [rng.uniform(-filter_db, filter_db) * _DB_TO_LOG for _ in edges]
    return np.interp(np.arange(num_bins), edges, gains).astype(np.float32)
