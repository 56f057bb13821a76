"""Are the features Kaldi's, and are they the same bits whole and in pieces?"""

import io
import tarfile
import tracemalloc
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.audio.fbank import FbankConfig, OnlineFbank, fbank
from snowmelt.audio.read import read_audio
from snowmelt.audio.resample import resample
from snowmelt.core.errors import AudioError, ConfigError

AN4 = Path(__file__).parents[2] / "data" / "an4.tar"
DIGITS = Path(__file__).parents[2] / "data" / "digits.tar"

Float32Array = npt.NDArray[np.float32]


def noise(num_samples: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def kaldi(samples: Float32Array, config: FbankConfig) -> Float32Array:
    """The features of an independent implementation."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = config.snip_edges
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq
    stream = kaldi_native_fbank.OnlineFbank(options)
    stream.accept_waveform(config.sample_rate, samples.tolist())
    stream.input_finished()
    frames = [stream.get_frame(t) for t in range(stream.num_frames_ready)]
    return np.array(frames, np.float32).reshape(-1, config.num_mel_bins)


def assert_close_to_kaldi(samples: Float32Array, config: FbankConfig) -> None:
    ours, theirs = fbank(samples, config), kaldi(samples, config)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    # Logarithms of sums in float32: quiet bins keep three or four digits of the energy.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(
    "config",
    [
        FbankConfig(),
        FbankConfig(high_freq=0.0),
        FbankConfig(snip_edges=True),
        FbankConfig(sample_rate=8000, num_mel_bins=40),
        FbankConfig(sample_rate=11025, num_mel_bins=40),
        FbankConfig(low_freq=100.0, high_freq=4000.0, num_mel_bins=23),
    ],
)
def test_features_are_kaldis(config: FbankConfig) -> None:
    tone = 0.3 * np.sin(np.arange(20000) * 0.05).astype(np.float32)
    silence = np.zeros(5000, np.float32)
    assert_close_to_kaldi(np.concatenate((noise(9000), tone, silence)), config)


@pytest.mark.parametrize("num_samples", [80, 81, 159, 160, 200, 240, 399, 400, 401, 1000])
def test_signals_of_about_a_frame_are_mirrored_as_in_kaldi(num_samples: int) -> None:
    assert_close_to_kaldi(noise(num_samples), FbankConfig())


@pytest.mark.parametrize("num_samples", [0, 1, 79])
def test_signals_without_a_frame(num_samples: int) -> None:
    assert fbank(noise(num_samples)).shape == (0, 80)


@pytest.mark.parametrize("archive", [AN4, DIGITS])
def test_features_of_real_speech_are_kaldis(archive: Path) -> None:
    with tarfile.open(archive) as members:
        recordings = [member for member in members if member.name.endswith(".opus")][:3]
        for recording in recordings:
            content = members.extractfile(recording)
            assert content is not None
            samples, sample_rate = read_audio(io.BytesIO(content.read()))
            assert_close_to_kaldi(resample(samples, sample_rate, 16000), FbankConfig())


def test_silence_is_the_floor() -> None:
    features = fbank(np.zeros(16000, np.float32))
    np.testing.assert_allclose(features, np.log(FbankConfig().mel_floor), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    num_samples=st.integers(0, 14000),
    config=st.sampled_from(
        [FbankConfig(), FbankConfig(snip_edges=True), FbankConfig(sample_rate=11025)]
    ),
    data=st.data(),
)
def test_any_split_gives_the_same_bits(
    num_samples: int, config: FbankConfig, data: st.DataObject
) -> None:
    samples = noise(num_samples, seed=num_samples)
    whole = fbank(samples, config)
    cuts = sorted(data.draw(st.lists(st.integers(0, num_samples), max_size=8), label="cuts"))
    stream = OnlineFbank(config)
    start = 0
    for begin, end in zip([0, *cuts], [*cuts, None], strict=True):
        stream.accept_waveform(samples[begin:end])
        if end is None:
            stream.input_finished()
        assert stream.num_frames_ready <= len(whole)
        stop = data.draw(st.integers(start, stream.num_frames_ready), label="stop")
        np.testing.assert_array_equal(stream.get_frames(start, stop), whole[start:stop])
        start = data.draw(st.integers(start, stop), label="discard before")
        stream.discard(start)
    assert stream.num_frames_ready == len(whole)
    np.testing.assert_array_equal(stream.get_frames(start, len(whole)), whole[start:])


def test_frames_ready_follow_the_samples() -> None:
    stream = OnlineFbank()
    ready = []
    for _ in range(3):
        stream.accept_waveform(noise(3200))
        ready.append(stream.num_frames_ready)
    stream.input_finished()
    # A frame is ready when its last sample, 280 after its first tenth, is there.
    assert [*ready, stream.num_frames_ready] == [19, 39, 59, 60]


def test_a_long_stream_needs_little_memory() -> None:
    stream = OnlineFbank()
    stream.get_frames(0, 0)
    piece = noise(3200)
    tracemalloc.start()
    try:
        for _ in range(1500):  # five minutes: 19 MB of samples
            stream.accept_waveform(piece)
            while stream.num_frames_ready >= stream.num_discarded + 39:
                stream.get_frames(stream.num_discarded, stream.num_discarded + 39)
                stream.discard(stream.num_discarded + 32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_frames_that_are_not_there_are_an_error() -> None:
    stream = OnlineFbank()
    stream.accept_waveform(noise(3200))
    stream.discard(5)
    stream.discard(3)
    assert stream.num_discarded == 5
    for start, stop in [(4, 10), (5, 20), (7, 6)]:
        with pytest.raises(IndexError, match=f"frames {start}..{stop} asked for, there are 5..19"):
            stream.get_frames(start, stop)
    stream.discard(1000)
    assert stream.num_discarded == 19
    stream.input_finished()
    with pytest.raises(RuntimeError, match="input_finished"):
        stream.accept_waveform(noise(10))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((100, 2), np.float32), r"must be \(num_samples,\), got \(100, 2\)"),
        (np.zeros(100, np.int16), "divide 16-bit samples by 32768"),
        (np.array([0, np.nan], np.float32), "NaN or infinity: look at their source"),
        (np.array([0, np.inf], np.float32), "from 0 to inf, not in"),
        (np.array([0, -20000], np.float32), "from -2e.04 to 0, not in"),
    ],
)
def test_unusable_samples_are_refused(samples: Float32Array, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        fbank(samples)
    stream = OnlineFbank()
    stream.accept_waveform(noise(1000))
    with pytest.raises(AudioError, match=message):
        stream.accept_waveform(samples)
    assert stream.num_frames_ready == 5


def test_float64_samples_and_views_are_taken() -> None:
    samples = noise(4000)
    np.testing.assert_array_equal(fbank(samples.astype(np.float64)), fbank(samples))
    strided = np.stack((samples, samples), axis=1)[:, 0]
    np.testing.assert_array_equal(fbank(strided), fbank(samples))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_rate": 0}, "must be positive"),
        ({"num_mel_bins": 0}, "must be positive"),
        ({"mel_floor": 0.0}, "must be positive"),
        ({"frame_shift_ms": 30.0}, "leave samples unread"),
        ({"frame_shift_ms": 0.0}, "are empty"),
        ({"high_freq": 9000.0}, "do not fit into 0..8000.0 Hz"),
        ({"high_freq": -8000.0}, "do not fit"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FbankConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 40])
def test_the_last_frame_finds_its_mirrored_samples(num_frames: int) -> None:
    # An odd frame length, and a signal that ends exactly in the middle of its last frame.
    config = FbankConfig(sample_rate=11025)
    assert (config.frame_length, config.frame_shift) == (275, 110)
    samples = noise((num_frames - 1) * 110 + 55)
    stream = OnlineFbank(config)
    stream.accept_waveform(samples)
    stream.discard(num_frames)
    stream.input_finished()
    frames = stream.get_frames(stream.num_discarded, num_frames)
    np.testing.assert_array_equal(frames, fbank(samples, config)[stream.num_discarded :])


@pytest.mark.parametrize("snip_edges", [False, True])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_the_samples_that_frames_need_are_the_fewest(sample_rate, snip_edges):
    config = FbankConfig(sample_rate=sample_rate, snip_edges=snip_edges)
    assert config.num_samples_needed(0) == 0
    for num_frames in (1, 2, 7, 39):
        needed = config.num_samples_needed(num_frames)
        assert config.num_whole_frames(needed) == num_frames
        assert config.num_whole_frames(needed - 1) == num_frames - 1


def test_overlapping_windows_compute_no_frame_twice(monkeypatch):
    """Chunks of 32 with 7 frames of overlap: a block of 32 each, if the sound is there."""
    from snowmelt.audio import fbank as module

    computed: list[tuple[int, int]] = []
    original = module._log_mel

    def counting(samples, offset, num_samples, start, stop, config):
        computed.append((start, stop))
        return original(samples, offset, num_samples, start, stop, config)

    signal = np.random.default_rng(5).normal(0, 0.1, 48000).astype(np.float32)
    expected = fbank(signal)
    monkeypatch.setattr(module, "_log_mel", counting)
    stream = OnlineFbank()
    stream.accept_waveform(signal)
    stream.input_finished()
    for begin in range(0, 300 - 39, 32):
        np.testing.assert_array_equal(
            stream.get_frames(begin, begin + 39), expected[begin : begin + 39]
        )
        stream.discard(begin + 32)
    assert computed == [(0, 64), *((b, min(b + 32, 300)) for b in range(64, 300, 32))]
    # A window that lies elsewhere, and the last frames.
    np.testing.assert_array_equal(stream.get_frames(290, 300), expected[290:])
    assert len(stream._known) <= 64
