"""How does sound become words? `OnlineRecognizer` chunk by chunk, `OfflineRecognizer` whole.

Both read the same frames, through the same encoder and search, and give the same words. The verbs
are sherpa-onnx's.

Invariant: a result never depends on what else is decoded at the same time, nor on how the sound
was cut into calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snowmelt.audio.fbank import PADDING_VALUE
from snowmelt.presets.frames import ENCODER_FRAME_S
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.stream import FeatureStream, OfflineStream, OnlineStream
from snowmelt.runtime.words import Word, confidence, graph_words, timed_words, token_ends
from snowmelt.search.method import ScoreParts, SearchMethod, SearchResult, n_best
from snowmelt.search.methods import build_search
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["OfflineRecognizer", "OnlineRecognizer", "RecognitionResult", "shares"]


@dataclass(frozen=True)
class RecognitionResult:
    """What was recognised in a stream since its start or its last `reset`.

    Attributes:
        text: the words.
        tokens: printed forms of the emitted tokens.
        timestamps: seconds at which each token was emitted, from the start of the segment.
        token_ends: seconds at which each token ends, see `runtime.words`.
        token_logprobs: natural log of each token's probability.
        words: the words of `text` with their times and confidences.
        start_time: start of the segment in seconds from the start of the stream.
        is_final: True if nothing will be added any more.
        stable_text: the beginning of `text` that can no longer change.
        log_prob: natural log of the path's score, with all that was added to it.
        confidence: 0 to 1; where the search has several hypotheses, this one's share of their
            probability, otherwise exp(mean log-probability of the tokens).
        score_parts: see `SearchResult`.
    """

    text: str
    tokens: tuple[str, ...]
    timestamps: tuple[float, ...]
    token_ends: tuple[float, ...]
    token_logprobs: tuple[float, ...]
    words: tuple[Word, ...]
    start_time: float
    is_final: bool
    stable_text: str
    log_prob: float
    confidence: float
    score_parts: ScoreParts | None = None


class OnlineRecognizer:
    """Recognises streams while they are heard.

    Args:
        model: what `snowmelt.load_model` gives.
        search: how tokens are found, of `search.methods.build_search`; None: the model's own.
        word_table: the word of each word id, for a search on a graph of words.
        max_chunks: most chunks that `decode_streams` takes at once, where they are there already:
            a recording is recognised several times faster than chunk by chunk, with the same
            words. What is heard live never waits for a second chunk.

    Example:
        recognizer = OnlineRecognizer(load_model("exp"))
        stream = recognizer.create_stream()
        for block in microphone:
            stream.accept_waveform(16000, block)
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
            print(recognizer.get_result(stream))
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        search: SearchMethod[Any] | None = None,
        word_table: Sequence[str] | None = None,
        max_chunks: int = 1,
    ) -> None:
        self._model = model
        self._chunk_len = model.backend.decode_chunk_len
        self._search = search or build_search(model.search)
        self._word_table = word_table
        self._max_chunks = max_chunks

    @property
    def decode_chunk_len(self) -> int:
        """Feature frames of 10 ms in a chunk."""
        return self._chunk_len

    @property
    def max_chunks(self) -> int:
        """Most chunks that `decode_streams` takes at once."""
        return self._max_chunks

    def sound_needed_s(self, num_chunks: int) -> float:
        """Seconds that a stream must have heard before it can advance by its first chunks.

        A window reads a little beyond its chunk: that much a chunk comes later than its own end.
        """
        features = self._model.features
        overlap = self._model.backend.front_end.window_overlap
        num_frames = num_chunks * self._chunk_len + overlap
        return features.num_samples_needed(num_frames) / features.sample_rate

    def create_stream(self) -> OnlineStream:
        """A stream that has heard nothing."""
        backend = self._model.backend
        return OnlineStream(
            _new_sound(self._model),
            backend.init_state(),
            self._search.init_state(backend.scorer),
        )

    def is_ready(self, stream: OnlineStream) -> bool:
        """True if `decode_streams` can advance this stream."""
        return stream.num_chunks_ready(self._chunk_len) > 0

    def is_final(self, stream: OnlineStream) -> bool:
        """True if all sound of a finished stream has been decoded."""
        return stream.sound.is_finished and not self.is_ready(stream)

    def decode_stream(self, stream: OnlineStream) -> None:
        """Advance one ready stream; see `decode_streams`."""
        self.decode_streams([stream])

    def decode_streams(self, streams: Sequence[OnlineStream]) -> None:
        """Advance ready streams as one batch, all by the same number of chunks.

        Raises:
            ValueError: a stream is not ready.
        """
        if not streams:
            return
        num_chunks = min(stream.num_chunks_ready(self._chunk_len) for stream in streams)
        if num_chunks == 0:
            raise ValueError("a stream is not ready: ask is_ready before decode_streams")
        num_frames = min(num_chunks, self._max_chunks) * self._chunk_len
        backend = self._model.backend
        features = np.stack([stream.window(num_frames) for stream in streams])
        feature_lens = np.full(len(streams), features.shape[1], dtype=np.int64)
        encoder_proj, lens, encoder_states = backend.encode(
            features, feature_lens, [stream.encoder_state for stream in streams]
        )
        search_states = self._search.step(
            backend.scorer, encoder_proj, lens, [stream.search_state for stream in streams]
        )
        # Only now, when nothing can fail any more: a stream is advanced whole or not at all.
        for n, stream in enumerate(streams):
            stream.advance(num_frames)
            stream.encoder_state = encoder_states[n]
            stream.search_state = search_states[n]
            stream.num_encoder_frames += int(lens[n])
            if self.is_final(stream):
                stream.encoder_state = None  # megabytes that nobody needs any more

    def get_result(self, stream: OnlineStream) -> str:
        """The words recognised so far in the current segment."""
        return self.get_result_all(stream).text

    def get_result_all(self, stream: OnlineStream) -> RecognitionResult:
        """The current segment's result with tokens, times and probabilities."""
        return self.get_nbest(stream, 1)[0]

    def get_nbest(
        self, stream: OnlineStream, num_nbest: int | None
    ) -> tuple[RecognitionResult, ...]:
        """The current segment's hypotheses, the best first.

        There is at least one, and no more than `num_nbest` (None: all); one where the search knows
        one path only.
        """
        is_final = self.is_final(stream)
        scorer = self._model.backend.scorer
        found = n_best(self._search, scorer, stream.search_state, is_final=is_final)
        return _results(
            self._model,
            found,
            self._word_table,
            stream.segment_start,
            is_final=is_final,
            num_nbest=num_nbest,
        )

    def reset(self, stream: OnlineStream, *, keep_history: bool = True) -> None:
        """Begin a new segment: the result is cleared, the encoder goes on.

        Args:
            stream: a stream.
            keep_history: the prediction network goes on from the last tokens, as in sherpa-onnx; if
                False it starts afresh.
        """
        stream.segment_start = stream.num_encoder_frames
        stream.search_state = self._search.clear_result(
            self._model.backend.scorer, stream.search_state, keep_history=keep_history
        )


class OfflineRecognizer:
    """Recognises whole utterances: the same words as in streaming.

    Memory grows with an utterance's length, with attention even with the square of it; minutes of
    sound belong into an `OnlineRecognizer`.

    Args:
        model: what `snowmelt.load_model` gives.
        search: how tokens are found, of `search.methods.build_search`; None: the model's own.
        word_table: the word of each word id, for a search on a graph of words.
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        search: SearchMethod[Any] | None = None,
        word_table: Sequence[str] | None = None,
    ) -> None:
        self._model = model
        self._search = search or build_search(model.search)
        self._word_table = word_table

    def create_stream(self) -> OfflineStream:
        """A stream that has heard nothing."""
        return OfflineStream(_new_sound(self._model))

    def decode_stream(self, stream: OfflineStream) -> None:
        """Recognise one utterance."""
        self.decode_streams([stream])

    def decode_streams(self, streams: Sequence[OfflineStream]) -> None:
        """Recognise utterances as one batch; their input ends here."""
        if not streams:
            return
        for stream in streams:
            stream.sound.input_finished()
        features, feature_lens = _padded([stream.sound for stream in streams])
        encoder_proj, lens = self._model.backend.encode_whole(features, feature_lens)
        scorer = self._model.backend.scorer
        states = [self._search.init_state(scorer) for _ in streams]
        states = self._search.step(scorer, encoder_proj, lens, states)
        for stream, state in zip(streams, states, strict=True):
            stream.found = n_best(self._search, scorer, state, is_final=True)

    def get_result(self, stream: OfflineStream) -> str:
        """The words of a decoded stream."""
        return self.get_result_all(stream).text

    def get_result_all(self, stream: OfflineStream) -> RecognitionResult:
        """The result of a decoded stream with tokens, times and probabilities.

        Raises:
            ValueError: the stream was not decoded.
        """
        return self.get_nbest(stream, 1)[0]

    def get_nbest(
        self, stream: OfflineStream, num_nbest: int | None
    ) -> tuple[RecognitionResult, ...]:
        """The hypotheses of a decoded stream, the best first; `num_nbest` as in `OnlineRecognizer`.

        Raises:
            ValueError: the stream was not decoded.
        """
        if stream.found is None:
            raise ValueError("the stream has no result: call decode_streams first")
        return _results(
            self._model, stream.found, self._word_table, 0, is_final=True, num_nbest=num_nbest
        )


def _new_sound(model: SpeechModel) -> FeatureStream:
    return FeatureStream(
        model.features,
        decode_chunk_len=model.backend.decode_chunk_len,
        window_overlap=model.backend.front_end.window_overlap,
        min_tail_s=model.min_tail_s,
    )


def _padded(sounds: Sequence[FeatureStream]) -> tuple[FloatArray, IntArray]:
    """(N, T_feat, F) and (N,) of finished utterances."""
    lens = np.array([sound.num_frames_ready for sound in sounds], dtype=np.int64)
    frames = [sound.frames(0, int(num)) for sound, num in zip(sounds, lens, strict=True)]
    shape = (len(frames), int(lens.max()), frames[0].shape[1])
    features = np.full(shape, PADDING_VALUE, dtype=np.float32)
    for row, own in zip(features, frames, strict=True):
        row[: len(own)] = own
    return features, lens


def _results(
    model: SpeechModel,
    found: Sequence[SearchResult],
    word_table: Sequence[str] | None,
    segment_start: int,
    *,
    is_final: bool,
    num_nbest: int | None,
) -> tuple[RecognitionResult, ...]:
    scores = [one.log_prob for one in found]
    confidences = shares(scores) if len(found) > 1 else [confidence(found[0].token_logprobs)]
    return tuple(
        _result(model, one, word_table, segment_start, is_final=is_final, share=share)
        for one, share in zip(found[:num_nbest], confidences, strict=False)
    )


def shares(log_probs: Sequence[float]) -> list[float]:
    """How sure a search is of each of its hypotheses: their shares of the probability of all."""
    scores = np.array(log_probs)
    probs = np.exp(scores - scores.max())
    return [float(share) for share in probs / probs.sum()]


def _result(
    model: SpeechModel,
    found: SearchResult,
    word_table: Sequence[str] | None,
    segment_start: int,
    *,
    is_final: bool,
    share: float,
) -> RecognitionResult:
    tokens = tuple(model.tokenizer.id_to_token[i] for i in found.tokens)
    timestamps = tuple(
        round((frame - segment_start) * ENCODER_FRAME_S, 3) for frame in found.timestamps
    )
    num_stable = len(tokens) if is_final else found.num_stable
    if found.words is None:
        text = model.tokenizer.decode(list(found.tokens))
        stable_text = text
        if num_stable < len(tokens):
            stable_text = model.tokenizer.decode(list(found.tokens[:num_stable]))
        words = timed_words(tokens, timestamps, found.token_logprobs)
    else:
        if word_table is None or found.word_timestamps is None:
            raise ValueError("the search finds word ids: give the recognizer a word_table")
        # The graph knows words that its tokens spell otherwise.
        texts = [word_table[i] for i in found.words]
        word_timestamps = [
            round((frame - segment_start) * ENCODER_FRAME_S, 3) for frame in found.word_timestamps
        ]
        text = stable_text = " ".join(texts)
        if num_stable < len(tokens):
            # A word comes with a token: it stays if that one does.
            stable_frames = found.timestamps[:num_stable][-1:]
            is_stable = [frame <= max(stable_frames, default=-1) for frame in found.word_timestamps]
            stable_text = " ".join(texts[: sum(is_stable)])
        words = graph_words(texts, word_timestamps, tokens, timestamps, found.token_logprobs)
    return RecognitionResult(
        text=text,
        tokens=tokens,
        timestamps=timestamps,
        token_ends=token_ends(timestamps),
        token_logprobs=found.token_logprobs,
        words=words,
        start_time=round(segment_start * ENCODER_FRAME_S, 3),
        is_final=is_final,
        stable_text=stable_text,
        log_prob=found.log_prob,
        confidence=share,
        score_parts=found.score_parts,
    )
