"""How do cuts become the tensors of a batch? Read, lengthen, compute features, augment, pad.

Invariant: an utterance's row of a batch is a function of (seed, epoch, cut) alone; only the amount
of padding after it depends on its batch mates. Where utterances are joined, this holds for the
joined ones.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lhotse.cut import Cut

from snowmelt.audio.fbank import PADDING_VALUE, FbankConfig
from snowmelt.data.alignment import NO_TARGET, TimedWord, frame_tokens, spread_words
from snowmelt.data.augment import SpecAugmentConfig, spec_augment, utterance_rng
from snowmelt.data.concatenate import Concatenation, concatenated
from snowmelt.data.cuts import AudioCache, cut_text, cut_words
from snowmelt.data.edges import cut_at_the_edges
from snowmelt.data.features import FeatureReader
from snowmelt.data.noise import NoiseMixer
from snowmelt.data.shards import shard_of
from snowmelt.data.stored_cuts import as_sequence
from snowmelt.data.voices import VoiceAugmentConfig, augment_voice
from snowmelt.presets.frames import ZIPFORMER_FRONT_END, FrontEnd, num_encoder_frames
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["AsrDataset", "Batch"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Batch:
    """N utterances as tensors; row n of everything is utterance n."""

    features: torch.Tensor  # (N, T, F) float32, padded with PADDING_VALUE
    feature_lens: torch.Tensor  # (N,) int64, feature frames before padding
    token_ids: torch.Tensor  # (N, S) int64, padded with 0
    token_lens: torch.Tensor  # (N,) int64
    cut_ids: tuple[str, ...]
    # (N, T') int64: the token spoken at each encoder frame, 0 in silence, NO_TARGET where unknown;
    # without columns unless the data set was asked for them.
    frame_tokens: torch.Tensor


class AsrDataset:
    """Cuts that can be asked for as batches.

    Args:
        cuts: the utterances; `get` counts them from 0 in this order.
        tokenizer: turns transcripts into token ids.
        fbank_config: the features; None: the usual 80 bins at 16 kHz. Cuts must have its rate.
        has_stored_features: take the features that the cuts' manifest names; else they are
            computed from the sound.
        concatenation: how far the utterances of a batch are joined; None: not at all.
        noise: what is mixed into the features; None for dev and test.
        voice_augment: how far voices and microphones are changed; None for dev and test.
        spec_augment: strength of SpecAugment; None for dev and test.
        cut_edges: share of the utterances, drawn anew in each epoch, that begin right with their
            first sound and end with their last, so that a model knows words without silence before
            them.
        max_tail_s: between 0 and this many seconds of digital silence are appended, drawn
            uniformly, so that a model knows the zeros which follow every utterance at recognition.
        has_frame_tokens: whether batches say which token is spoken at each encoder frame: from the
            cuts' word times, or guessed where they have none. Features must not be warped in time.
        front_end: tells which time an encoder frame stands for.
        seed: seed of the run.
        cache: decoded recordings; give the same one to data sets that share files.
    """

    def __init__(
        self,
        cuts: Iterable[Cut],
        tokenizer: Tokenizer,
        *,
        fbank_config: FbankConfig | None = None,
        has_stored_features: bool = False,
        concatenation: Concatenation | None = None,
        noise: NoiseMixer | None = None,
        voice_augment: VoiceAugmentConfig | None = None,
        spec_augment: SpecAugmentConfig | None = None,
        cut_edges: float = 0.0,
        max_tail_s: float = 0.0,
        has_frame_tokens: bool = False,
        front_end: FrontEnd = ZIPFORMER_FRONT_END,
        seed: int = 42,
        cache: AudioCache | None = None,
    ) -> None:
        self._cuts = as_sequence(cuts)
        self._tokenizer = tokenizer
        self._cache = AudioCache() if cache is None else cache
        self._reader = FeatureReader(fbank_config, self._cache, is_stored=has_stored_features)
        self._concatenation = concatenation
        self._noise = noise
        self._voice_augment = voice_augment
        self._spec_augment = spec_augment
        self._cut_edges = cut_edges
        self._max_tail_samples = round(max_tail_s * self._reader.config.sample_rate)
        self._has_frame_tokens = has_frame_tokens
        self._front_end = front_end
        self._seed = seed

    def __len__(self) -> int:
        return len(self._cuts)

    @cached_property
    def durations(self) -> list[float]:
        """Seconds of each utterance, uncut and without appended silence: what the sampler wants."""
        return [float(cut.duration) for cut in self._cuts]

    @cached_property
    def shards(self) -> list[str] | None:
        """The shard of each utterance; None unless all are in shards."""
        shards = []
        for cut in self._cuts:
            shard = shard_of(cut, has_stored_features=self._reader.is_stored)
            if not shard:
                return None
            # One string for all that lie in it.
            shards.append(sys.intern(shard))
        return shards

    @property
    def num_tokens(self) -> list[int]:
        """Tokens of each utterance."""
        return [len(self._tokenizer.encode(cut_text(cut))) for cut in self._cuts]

    def get(self, indices: Sequence[int], epoch: int) -> Batch:
        """The batch of some utterances, in the order given unless they are joined.

        Args:
            indices: numbers of the utterances, at least one.
            epoch: number of the epoch; changes what augmentation draws.

        Raises:
            UserError: a sound file is missing or damaged, or has another sample rate.
        """
        cuts = [self._trimmed(self._cuts[index], epoch) for index in indices]
        if self._concatenation is not None:
            cuts = concatenated(cuts, self._concatenation)
        clean = [self._features(cut, epoch) for cut in cuts]
        labels = [self._frame_tokens(cut, row) for cut, row in zip(cuts, clean, strict=True)]
        features = [self._augmented(cut, row, epoch) for cut, row in zip(cuts, clean, strict=True)]
        token_ids = [np.asarray(self._tokenizer.encode(cut_text(cut)), np.int64) for cut in cuts]
        return Batch(
            features=torch.from_numpy(_padded(features, PADDING_VALUE)),
            feature_lens=torch.tensor([len(row) for row in features]),
            token_ids=torch.from_numpy(_padded(token_ids, 0)),
            token_lens=torch.tensor([len(row) for row in token_ids]),
            cut_ids=tuple(cut.id for cut in cuts),
            frame_tokens=torch.from_numpy(_padded(labels, NO_TARGET)),
        )

    def _trimmed(self, cut: Cut, epoch: int) -> Cut:
        """The utterance, or what is left of it when it is cut at its edges."""
        if self._cut_edges:
            rng = utterance_rng(self._seed, epoch, cut.id, "edges")
            if rng.random() < self._cut_edges:
                return cut_at_the_edges(cut, self._cache)
        return cut

    def _frame_tokens(self, cut: Cut, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Token of each encoder frame of one utterance, (T',); empty when not asked for."""
        if not self._has_frame_tokens:
            return np.zeros(0, np.int64)
        words = [TimedWord(w.symbol, w.start, w.end) for w in cut_words(cut)]
        if not words:
            words = spread_words(cut_text(cut).split(), features)
        return frame_tokens(
            words, num_encoder_frames(len(features)), self._tokenizer, front_end=self._front_end
        )

    def _features(self, cut: Cut, epoch: int) -> npt.NDArray[np.float32]:
        num_tail_samples = 0
        if self._max_tail_samples:
            rng = utterance_rng(self._seed, epoch, cut.id, "tail")
            num_tail_samples = rng.randint(0, self._max_tail_samples)
        return self._reader.read(cut, num_tail_samples=num_tail_samples)

    def _augmented(
        self, cut: Cut, features: npt.NDArray[np.float32], epoch: int
    ) -> npt.NDArray[np.float32]:
        if self._voice_augment is not None:
            rng = utterance_rng(self._seed, epoch, cut.id, "voice")
            features = augment_voice(features, rng, self._voice_augment, self._reader.config)
        if self._noise is not None:
            features = self._noise.mix(features, utterance_rng(self._seed, epoch, cut.id, "noise"))
        if self._spec_augment is not None:
            rng = utterance_rng(self._seed, epoch, cut.id, "spec_augment")
            features = spec_augment(features, rng, self._spec_augment)
        return features


def _padded(rows: list[npt.NDArray[_Scalar]], value: float) -> npt.NDArray[_Scalar]:
    """Rows (T, ...) of different T as one array (N, max T, ...)."""
    shape = (len(rows), max(len(row) for row in rows), *rows[0].shape[1:])
    padded = np.full(shape, value, rows[0].dtype)
    for n, row in enumerate(rows):
        padded[n, : len(row)] = row
    return padded
