"""How does sound of any rate, in pieces of any length, become the frames a model reads?

    samples -> one rate -> ... -> tail of zeros at the end -> feature frames

`OnlineStream` adds what a live utterance needs beside them: encoder state and search state.

Invariant: the frames depend on the samples only, never on how they were cut into calls; what the
encoder has read is dropped, so memory does not grow with the length of a stream.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snowmelt.audio.fbank import FbankConfig, OnlineFbank
from snowmelt.audio.resample import StreamResampler
from snowmelt.audio.samples import as_samples
from snowmelt.audio.tail import tail_samples
from snowmelt.core.errors import AudioError
from snowmelt.search.method import SearchResult
from snowmelt.search.scorer import FloatArray

__all__ = ["FeatureStream", "OfflineStream", "OnlineStream"]


class FeatureStream:
    """Samples in, feature frames out.

    Args:
        features: how samples become features; gives the model's sample rate.
        decode_chunk_len: feature frames the encoder advances per chunk.
        window_overlap: feature frames that a window has beyond its chunks.
        min_tail_s: least seconds of zero samples after the last sample.
    """

    def __init__(
        self,
        features: FbankConfig,
        *,
        decode_chunk_len: int,
        window_overlap: int,
        min_tail_s: float,
    ) -> None:
        self._fbank = OnlineFbank(features)
        self._model_rate = features.sample_rate
        self._decode_chunk_len = decode_chunk_len
        self.window_overlap = window_overlap
        self._min_tail_s = min_tail_s
        self._resampler: StreamResampler | None = None
        self._num_samples = 0  # at the model's rate
        self.is_finished = False

    @property
    def duration_s(self) -> float:
        """Seconds heard so far, without the tail."""
        return self._num_samples / self._model_rate

    def accept_waveform(self, sample_rate: int, samples: npt.ArrayLike) -> None:
        """Hear the next samples.

        Args:
            sample_rate: their rate in Hz; the same in every call.
            samples: (num_samples,) floats in [-1, 1], any number of them.

        Raises:
            AudioError: not one channel of finite floats in [-1, 1], the rate changed, or
                `input_finished` was called before.
        """
        new_samples = as_samples(samples)
        if self.is_finished:
            raise AudioError("samples came after input_finished", "create a new stream")
        if self._resampler is None:
            self._resampler = StreamResampler(sample_rate, self._model_rate)
        elif sample_rate != self._resampler.from_rate:
            raise AudioError(
                f"the sample rate changed from {self._resampler.from_rate} to {sample_rate} "
                "inside a stream",
                "create one stream for each rate",
            )
        self._hear(self._resampler.process(new_samples))

    def input_finished(self) -> None:
        """No more samples follow; a second call does nothing."""
        if self.is_finished:
            return
        if self._resampler is not None:
            self._hear(self._resampler.process(np.zeros(0, np.float32), last=True))
        tail = tail_samples(
            self._num_samples,
            self._decode_chunk_len,
            self.window_overlap,
            min_tail_s=self._min_tail_s,
            sample_rate=self._model_rate,
        )
        self._fbank.accept_waveform(np.zeros(tail, np.float32))
        self._fbank.input_finished()
        self.is_finished = True

    @property
    def num_frames_ready(self) -> int:
        """Feature frames that exist so far, dropped ones included."""
        return self._fbank.num_frames_ready

    def frames(self, start: int, stop: int) -> FloatArray:
        """(stop - start, F) float32; frames that were dropped cannot be asked for."""
        return self._fbank.get_frames(start, stop)

    def drop_frames(self, before: int) -> None:
        """Forget all frames before this one."""
        self._fbank.discard(before)

    def _hear(self, samples: FloatArray) -> None:
        self._num_samples += len(samples)
        self._fbank.accept_waveform(samples)


class OnlineStream:
    """One live utterance: unread sound, encoder state, search state, position.

    Made by `OnlineRecognizer.create_stream`; users call `accept_waveform` and `input_finished`.
    """

    def __init__(self, sound: FeatureStream, encoder_state: Any, search_state: Any) -> None:
        self.sound = sound
        self.encoder_state = encoder_state
        self.search_state = search_state
        self.position = 0  # first feature frame of the next window
        self.num_encoder_frames = 0  # searched so far
        self.segment_start = 0  # encoder frames before the current segment

    def accept_waveform(self, sample_rate: int, samples: npt.ArrayLike) -> None:
        """Hear the next samples; see `FeatureStream.accept_waveform`."""
        self.sound.accept_waveform(sample_rate, samples)

    def input_finished(self) -> None:
        """No more samples follow; what was said last can now be decoded."""
        self.sound.input_finished()

    def num_chunks_ready(self, decode_chunk_len: int) -> int:
        """Chunks the encoder can advance by."""
        frames = self.sound.num_frames_ready - self.position - self.sound.window_overlap
        return max(0, frames // decode_chunk_len)

    def window(self, num_frames: int) -> FloatArray:
        """(num_frames + overlap, F) float32, what the encoder reads to advance by `num_frames`."""
        stop = self.position + num_frames + self.sound.window_overlap
        return self.sound.frames(self.position, stop)

    def advance(self, num_frames: int) -> None:
        """The encoder has read a window: neighbouring windows overlap."""
        self.position += num_frames
        self.sound.drop_frames(self.position)


class OfflineStream:
    """One whole utterance; made by `OfflineRecognizer.create_stream`."""

    def __init__(self, sound: FeatureStream) -> None:
        self.sound = sound
        self.found: Sequence[SearchResult] | None = None  # the best first

    def accept_waveform(self, sample_rate: int, samples: npt.ArrayLike) -> None:
        """Hear the next, or all, samples; see `FeatureStream.accept_waveform`."""
        self.sound.accept_waveform(sample_rate, samples)
