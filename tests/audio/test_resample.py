"""Do pieces resample to the bits of the whole, and is the result the same sound?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.audio.resample import StreamResampler, resample
from snowmelt.core.errors import AudioError

RATES = [(8000, 16000), (44100, 16000), (48000, 16000), (22050, 16000), (16000, 8000)]


@settings(max_examples=40, deadline=None)
@given(
    rates=st.sampled_from([*RATES, (16000, 16000)]),
    num_samples=st.integers(0, 60000),
    data=st.data(),
)
def test_any_split_gives_the_same_bits(
    rates: tuple[int, int], num_samples: int, data: st.DataObject
) -> None:
    samples = np.random.default_rng(num_samples).normal(size=num_samples).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, num_samples), max_size=6), label="cuts"))
    stream = StreamResampler(*rates)
    pieces = [
        stream.process(samples[begin:end], last=end is None)
        for begin, end in zip([0, *cuts], [*cuts, None], strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), resample(samples, *rates))


@pytest.mark.parametrize("rates", RATES)
def test_a_tone_keeps_its_pitch_level_and_place(rates: tuple[int, int]) -> None:
    def tone(sample_rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * 440 * np.arange(sample_rate) / sample_rate).astype(np.float32)

    resampled = resample(tone(rates[0]), *rates)
    assert resampled.dtype == np.float32
    assert len(resampled) == rates[1]
    # Both ends ring, because the tone begins and ends abruptly.
    inside = slice(200, -200)
    np.testing.assert_allclose(resampled[inside], tone(rates[1])[inside], atol=1e-3)


def test_equal_rates_change_nothing() -> None:
    samples = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(resample(samples, 16000, 16000), samples)


def test_samples_after_the_last_piece_are_a_bug() -> None:
    stream = StreamResampler(8000, 16000)
    stream.process(np.zeros(10, np.float32), last=True)
    with pytest.raises(RuntimeError, match="after the last piece"):
        stream.process(np.zeros(10, np.float32))


@pytest.mark.parametrize("rates", [(0, 16000), (16000, -1)])
def test_impossible_rates_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(AudioError, match="rates must be positive"):
        StreamResampler(*rates)
