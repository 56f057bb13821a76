"""Filter banks of 10 s of sound: ours, and kaldi-native-fbank called from Python."""

from collections.abc import Callable

import kaldi_native_fbank as knf
import numpy as np

from snowmelt.audio.fbank import OnlineFbank, fbank

__all__ = ["benchmarks"]

_SAMPLE_RATE = 16000
_SECONDS = 10
_CHUNK_FRAMES = 32


def benchmarks() -> dict[str, Callable[[], object]]:
    """Name -> what is measured."""
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(_SECONDS * _SAMPLE_RATE).astype(np.float32)

    def online() -> None:
        stream = OnlineFbank()
        for piece in np.split(samples, 2 * _SECONDS):
            stream.accept_waveform(piece)
            start, ready = stream.num_discarded, stream.num_frames_ready
            for chunk in range(start, ready - _CHUNK_FRAMES + 1, _CHUNK_FRAMES):
                stream.get_frames(chunk, chunk + _CHUNK_FRAMES)
                stream.discard(chunk + _CHUNK_FRAMES)

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400

    def other() -> None:
        stream = knf.OnlineFbank(options)
        stream.accept_waveform(_SAMPLE_RATE, samples)
        stream.input_finished()
        np.stack([stream.get_frame(i) for i in range(stream.num_frames_ready)])

    return {
        f"fbank, whole, {_SECONDS} s": lambda: fbank(samples),
        f"fbank, pieces of 0.5 s, {_SECONDS} s": online,
        f"fbank, kaldi-native-fbank, {_SECONDS} s": other,
    }
