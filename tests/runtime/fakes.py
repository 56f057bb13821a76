"""A model whose words can be worked out from the sound: for every test of streams and recognizers.

A tone gives the token of its pitch when it begins; so LOW HIGH LOW is what a recognizer must say
of three bursts, wherever they lie.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from snowmelt.audio.fbank import FbankConfig
from snowmelt.presets.frames import SUBSAMPLING_FACTOR, ZIPFORMER_FRONT_END, FrontEnd
from snowmelt.runtime.backend import SpeechModel
from snowmelt.search.scorer import FloatArray, IntArray

WORDS = ("<blk>", "<sos/eos>", "<unk>", "▁LOW", "▁HIGH")
LOW, HIGH = 3, 4


class FakeTokenizer:
    kind = "words"
    vocab_size = len(WORDS)
    blank_id = 0
    sos_eos_id = 1
    unk_id = 2
    id_to_token = WORDS

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(f"▁{word}") for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(WORDS[i] for i in ids).replace("▁", " ").strip()

    def save(self, directory) -> None:
        raise NotImplementedError


class FakeScorer:
    """J = V: the encoder's frame is the logits; the history takes no part."""

    context_size = 2
    blank_id = 0
    unk_id = 2

    def decode(self, contexts: IntArray) -> FloatArray:
        return np.zeros((len(contexts), len(WORDS)), np.float32)

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        return encoder_proj + decoder_proj


class FakeState(NamedTuple):
    last_word: int = 0


class FakeBackend:
    """One encoder frame for four feature frames; a token where its tone begins."""

    scorer = FakeScorer()

    def __init__(
        self, decode_chunk_len: int = 32, front_end: FrontEnd = ZIPFORMER_FRONT_END
    ) -> None:
        self.decode_chunk_len = decode_chunk_len
        self.front_end = front_end
        self.batch_sizes: list[int] = []

    def init_state(self) -> FakeState:
        return FakeState()

    def encode(
        self, features: FloatArray, feature_lens: IntArray, states: Sequence[FakeState]
    ) -> tuple[FloatArray, IntArray, list[FakeState]]:
        num_frames = features.shape[1] - self.front_end.window_overlap
        assert num_frames > 0 and num_frames % self.decode_chunk_len == 0
        self.batch_sizes.append(len(features))
        logits, new_states = [], []
        for row, state in zip(features, states, strict=True):
            own, word = _logits(row[:num_frames], state.last_word)
            logits.append(own)
            new_states.append(FakeState(word))
        lens = np.full(len(features), logits[0].shape[0], dtype=np.int64)
        return np.stack(logits), lens, new_states

    def encode_whole(
        self, features: FloatArray, feature_lens: IntArray
    ) -> tuple[FloatArray, IntArray]:
        lens = (feature_lens - self.front_end.window_overlap) // SUBSAMPLING_FACTOR
        out = np.full((len(features), int(lens.max()), len(WORDS)), np.nan, np.float32)
        for n, num in enumerate(lens):
            out[n, :num] = _logits(features[n, : 4 * num], 0)[0]
        return out, lens


def _logits(features: FloatArray, last_word: int) -> tuple[FloatArray, int]:
    """(T / 4, V) and the word that was sounding in the last frame, 0 for silence."""
    loudest = features.reshape(-1, 4, features.shape[1])  # (T / 4, 4, F)
    loudest = loudest[np.arange(len(loudest)), loudest.max(axis=2).argmax(axis=1)]
    logits = np.zeros((len(loudest), len(WORDS)), np.float32)
    for t, frame in enumerate(loudest):
        # Bin 33 lies at 1 kHz, between the two tones.
        word = 0 if frame.max() < -4 else LOW if frame.argmax() < 33 else HIGH
        logits[t, word if word != last_word else 0] = 5.0
        last_word = word
    return logits, last_word


def fake_model(
    decode_chunk_len: int = 32,
    min_tail_s: float = 0.4,
    features: FbankConfig | None = None,
    front_end: FrontEnd = ZIPFORMER_FRONT_END,
) -> SpeechModel:
    backend = FakeBackend(decode_chunk_len, front_end)
    return SpeechModel(backend, FakeTokenizer(), features or FbankConfig(), min_tail_s)


def burst(word: int, seconds: float = 0.1, rate: int = 16000) -> FloatArray:
    """A tone that `FakeBackend` hears as one word."""
    frequency = {LOW: 400, HIGH: 2500}[word]
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def silence(seconds: float, rate: int = 16000) -> FloatArray:
    return np.zeros(round(seconds * rate), np.float32)
