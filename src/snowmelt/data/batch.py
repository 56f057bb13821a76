"""How do cuts become the tensors of a batch? Read, lengthen, compute features, augment, pad.

Invariant: an utterance's row of a batch is a function of (seed, epoch, cut) alone; only the amount
of padding after it depends on its batch mates.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lhotse.cut import Cut

from snowmelt.audio.fbank import FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.augment import SpecAugmentConfig, spec_augment, utterance_rng
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["PADDING_VALUE", "AsrDataset", "Batch"]

# Lower than any computed feature; the value of the original everywhere.
PADDING_VALUE: Final = math.log(1e-10)

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Batch:
    """N utterances as tensors; row n of everything is utterance n."""

    features: torch.Tensor  # (N, T, F) float32, padded with PADDING_VALUE
    feature_lens: torch.Tensor  # (N,) int64, feature frames before padding
    token_ids: torch.Tensor  # (N, S) int64, padded with 0
    token_lens: torch.Tensor  # (N,) int64
    cut_ids: tuple[str, ...]


class AsrDataset:
    """Cuts that can be asked for as batches, features computed on the fly.

    Args:
        cuts: the utterances; `get` counts them from 0 in this order.
        tokenizer: turns transcripts into token ids.
        fbank_config: the features; None: the usual 80 bins at 16 kHz. Cuts must have its rate.
        spec_augment: strength of SpecAugment; None for dev and test.
        max_tail_s: between 0 and this many seconds of digital silence are appended, drawn
            uniformly, so that a model knows the zeros which follow every utterance at recognition.
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
        seed: int = 42,
        cache: AudioCache | None = None,
    ) -> None:
        self._cuts = list(cuts)
        self._tokenizer = tokenizer
        self._fbank_config = FbankConfig() if fbank_config is None else fbank_config
        self._spec_augment = spec_augment
        self._max_tail_samples = round(max_tail_s * self._fbank_config.sample_rate)
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
        features = [self._features(cut, epoch) for cut in cuts]
        token_ids = [np.asarray(self._tokenizer.encode(cut_text(cut)), np.int64) for cut in cuts]
        return Batch(
            features=torch.from_numpy(_padded(features, PADDING_VALUE)),
            feature_lens=torch.tensor([len(row) for row in features]),
            token_ids=torch.from_numpy(_padded(token_ids, 0)),
            token_lens=torch.tensor([len(row) for row in token_ids]),
            cut_ids=tuple(cut.id for cut in cuts),
        )

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
        features = fbank(samples, self._fbank_config)
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
