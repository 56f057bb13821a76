"""How do cuts become the tensors of a batch? Read, lengthen, compute features, augment, pad.

Invariant: an utterance's row of a batch is a function of (seed, epoch, cut) alone; only the amount
of padding after it depends on its batch mates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lhotse.cut import Cut

from snowmelt.audio.fbank import PADDING_VALUE, FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.alignment import NO_TARGET, TimedWord, frame_tokens, spread_words
from snowmelt.data.augment import SpecAugmentConfig, spec_augment, utterance_rng
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from snowmelt.presets.frames import num_encoder_frames
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
    """Cuts that can be asked for as batches, features computed on the fly.

    Args:
        cuts: the utterances; `get` counts them from 0 in this order.
        tokenizer: turns transcripts into token ids.
        fbank_config: the features; None: the usual 80 bins at 16 kHz. Cuts must have its rate.
        spec_augment: strength of SpecAugment; None for dev and test.
        max_tail_s: between 0 and this many seconds of digital silence are appended, drawn
            uniformly, so that a model knows the zeros which follow every utterance at recognition.
        has_frame_tokens: whether batches say which token is spoken at each encoder frame: from the
            cuts' word times, or guessed where they have none. Features must not be warped in time.
        seed: seed of the run.
        cache: decoded recordings; give the same one to data sets that share files.
    """

    def __init__(
        self,
        cuts: Iterable[Cut],
        tokenizer: Tokenizer,
        *,
        fbank_config: FbankConfig | None = None,
        spec_augment: SpecAugmentConfig | None = None,
        max_tail_s: float = 0.0,
        has_frame_tokens: bool = False,
        seed: int = 42,
        cache: AudioCache | None = None,
    ) -> None:
        self._cuts = list(cuts)
        self._tokenizer = tokenizer
        self._fbank_config = FbankConfig() if fbank_config is None else fbank_config
        self._spec_augment = spec_augment
        self._max_tail_samples = round(max_tail_s * self._fbank_config.sample_rate)
        self._has_frame_tokens = has_frame_tokens
        self._seed = seed
        self._cache = AudioCache() if cache is None else cache

    def __len__(self) -> int:
        return len(self._cuts)

    @property
    def durations(self) -> list[float]:
        """Seconds of each utterance, without appended silence: what the sampler wants."""
        return [float(cut.duration) for cut in self._cuts]

    def get(self, indices: Sequence[int], epoch: int) -> Batch:
        """The batch of some utterances, in the order given.

        Args:
            indices: numbers of the utterances, at least one.
            epoch: number of the epoch; changes what augmentation draws.

        Raises:
            UserError: a sound file is missing or damaged, or has another sample rate.
        """
        cuts = [self._cuts[index] for index in indices]
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

    def _frame_tokens(self, cut: Cut, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Token of each encoder frame of one utterance, (T',); empty when not asked for."""
        if not self._has_frame_tokens:
            return np.zeros(0, np.int64)
        words = [TimedWord(w.symbol, w.start, w.end) for w in cut_words(cut)]
        if not words:
            words = spread_words(cut_text(cut).split(), features)
        return frame_tokens(words, num_encoder_frames(len(features)), self._tokenizer)

    def _features(self, cut: Cut, epoch: int) -> npt.NDArray[np.float32]:
        if cut.sampling_rate != self._fbank_config.sample_rate:
            raise DataError(
                f"cut {cut.id} has {cut.sampling_rate} Hz, the features are computed at "
                f"{self._fbank_config.sample_rate} Hz",
                "resample the cuts with lhotse: cuts.resample(...)",
            )
        samples = load_samples(cut, self._cache)
        if self._max_tail_samples:
            rng = utterance_rng(self._seed, epoch, cut.id, "tail")
            samples = np.pad(samples, (0, rng.randint(0, self._max_tail_samples)))
        return fbank(samples, self._fbank_config)

    def _augmented(
        self, cut: Cut, features: npt.NDArray[np.float32], epoch: int
    ) -> npt.NDArray[np.float32]:
        if self._spec_augment is None:
            return features
        rng = utterance_rng(self._seed, epoch, cut.id, "spec_augment")
        return spec_augment(features, rng, self._spec_augment)


def _padded(rows: list[npt.NDArray[_Scalar]], value: float) -> npt.NDArray[_Scalar]:
    """Rows (T, ...) of different T as one array (N, max T, ...)."""
    shape = (len(rows), max(len(row) for row in rows), *rows[0].shape[1:])
    padded = np.full(shape, value, rows[0].dtype)
    for n, row in enumerate(rows):
        padded[n, : len(row)] = row
    return padded
