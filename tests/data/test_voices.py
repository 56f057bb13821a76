"""Other throats, other microphones: frequencies move as far as they should, frames stay."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from snowmelt.audio.fbank import FbankConfig, fbank, mel_centres
from snowmelt.core.errors import ConfigError
from snowmelt.data.voices import VoiceAugmentConfig, augment_voice

_FBANK = FbankConfig()
_RATE = _FBANK.sample_rate


class _Drawn(random.Random):
    """A generator that always draws the same share of the way from one end to the other."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self._share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self._share * (b - a)


def _tone(frequency: float) -> np.ndarray:
    times = np.arange(_RATE, dtype=np.float64) / _RATE
    return fbank((0.3 * np.sin(2 * np.pi * frequency * times)).astype(np.float32), _FBANK)


def _peak_hz(features: np.ndarray) -> float:
    return float(mel_centres(_FBANK)[features.mean(axis=0).argmax()])


@pytest.mark.parametrize("frequency", [400.0, 1000.0, 3000.0])
@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_a_tone_moves_by_the_factor(frequency: float, share: float, factor: float) -> None:
    warped = augment_voice(
        _tone(frequency), _Drawn(share), VoiceAugmentConfig(vtlp_warp=0.1), _FBANK
    )
    # A bin and a half of tolerance: bins are 40 Hz apart at 400 Hz, 140 Hz at 3 kHz.
    assert _peak_hz(warped) == pytest.approx(factor * frequency, rel=0.06)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_both_ends_of_the_axis_stay(share: float) -> None:
    ramp = np.repeat(mel_centres(_FBANK)[None].astype(np.float32), 5, axis=0)
    warped = augment_voice(ramp, _Drawn(share), VoiceAugmentConfig(vtlp_warp=0.25), _FBANK)
    assert warped[0, -1] == pytest.approx(ramp[0, -1], rel=0.04)
    assert (np.diff(warped, axis=1) >= 0.0).all()
    assert warped.dtype == np.float32 and warped.shape == ramp.shape


def test_a_filter_is_the_same_in_all_frames_and_within_its_range() -> None:
    features = np.random.default_rng(0).standard_normal((50, 80)).astype(np.float32)
    spans = []
    for seed in range(200):
        config = VoiceAugmentConfig(filter_db=6.0)
        gains = augment_voice(features, random.Random(seed), config, _FBANK) - features
        assert np.allclose(gains, gains[0], atol=1e-5)
        db = gains[0] * 10.0 / np.log(10.0)
        assert np.abs(db).max() <= 6.0 + 1e-4
        spans.append(np.ptp(db))
    assert np.median(spans) > 4.0  # mostly a real change of colour, not only of loudness


@pytest.mark.parametrize(
    "config", [VoiceAugmentConfig(vtlp_warp=0.1), VoiceAugmentConfig(filter_db=6.0)]
)
def test_draws_depend_on_the_generator_alone(config: VoiceAugmentConfig) -> None:
    features = _tone(700.0)
    before = features.copy()
    one, again, other = (
        augment_voice(features, random.Random(seed), config, _FBANK) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.array_equal(features, before)
    assert len(augment_voice(features[:1], random.Random(1), config, _FBANK)) == 1


def test_nothing_is_changed_when_all_is_off() -> None:
    features = _tone(700.0)
    assert augment_voice(features, random.Random(0), VoiceAugmentConfig(), _FBANK) is features


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VoiceAugmentConfig(vtlp_warp=0.3), "vtlp_warp is 0.3"),
        (lambda: VoiceAugmentConfig(vtlp_warp=-0.1), "vtlp_warp is -0.1"),
        (lambda: VoiceAugmentConfig(vtlp_warp=float("nan")), "vtlp_warp is nan"),
        (lambda: VoiceAugmentConfig(filter_db=-1.0), "filter_augment_db is -1"),
    ],
)
def test_values_out_of_range_are_named(
    make: Callable[[], VoiceAugmentConfig], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
