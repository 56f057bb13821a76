"""Where do the features of a cut come from? From its sound, or from where a preparation left them.

Computed features are exact and their sound can still be lengthened; stored ones cost no computing.
`snowmelt prepare` stores them in half precision (`feature_rows`), which is off by 1/256 at most;
lhotse's usual storage is off by 1/64 and needs the package lilcom.

Invariant: the features of a cut are a function of the cut alone.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from lhotse.cut import Cut

import snowmelt.data.feature_rows  # lhotse then reads what `prepare` stores
import snowmelt.data.shards  # noqa: F401  (the same)
from snowmelt.audio.fbank import FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.cuts import AudioCache, load_samples

__all__ = ["FeatureReader", "why_not_stored"]

_COMPUTE_HINT = "compute features from the sound: --on-the-fly-feats true"


def why_not_stored(cuts: Iterable[Cut], config: FbankConfig) -> str:
    """Why the features of all these cuts cannot be read from where a preparation left them.

    Args:
        cuts: all that will be read.
        config: the features that are wanted.

    Returns:
        The reason, in words; "" if they can.
    """
    shift_s = config.frame_shift / config.sample_rate
    num_cuts = num_stored = 0
    for cut in cuts:
        num_cuts += 1
        if not cut.has_features:
            continue
        num_stored += 1
        if cut.num_features != config.num_mel_bins or abs(cut.frame_shift - shift_s) > 1e-6:
            return f"the stored ones have {cut.num_features} bins every {cut.frame_shift:g} s"
    if num_stored == num_cuts:
        return ""
    return f"{num_stored} of {num_cuts} utterances have stored ones" if num_stored else "none"


class FeatureReader:
    """Log-mel features of cuts.

    Args:
        config: the features; None: the usual 80 bins at 16 kHz. Cuts must have its rate.
        cache: decoded recordings.
        is_stored: take the features that the cuts' manifest names; else compute them.
    """

    def __init__(
        self,
        config: FbankConfig | None = None,
        cache: AudioCache | None = None,
        *,
        is_stored: bool = False,
    ) -> None:
        self.config = FbankConfig() if config is None else config
        self.is_stored = is_stored
        self._cache = AudioCache() if cache is None else cache

    def read(
        self, cut: Cut, *, num_tail_samples: int = 0, max_frames: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Features of a cut.

        Args:
            cut: one utterance, or a piece of noise.
            num_tail_samples: digital silence that is appended to its sound.
            max_frames: what comes after so many frames is left out; None: nothing is.

        Returns:
            (T, F) float32.

        Raises:
            UserError: a file is missing or damaged, has another sample rate, or the cut's stored
                features are missing, unreadable or of another kind.
        """
        if cut.sampling_rate != self.config.sample_rate:
            raise DataError(
                f"cut {cut.id} has {cut.sampling_rate} Hz, the features are computed at "
                f"{self.config.sample_rate} Hz",
                "resample the cuts with lhotse: cuts.resample(...)",
            )
        if self.is_stored:
            features = self._stored(cut)
            # What the filter bank gives for zeros.
            num_silent = self.config.num_frames(num_tail_samples)
            floor = np.float32(np.log(np.float32(self.config.mel_floor)))
            silence = np.full((num_silent, features.shape[1]), floor)
            return np.concatenate([features, silence])[:max_frames]
        samples = load_samples(cut, self._cache)
        if max_frames is not None:
            samples = samples[: max_frames * self.config.frame_shift]
        return fbank(np.pad(samples, (0, num_tail_samples)), self.config)[:max_frames]

    def _stored(self, cut: Cut) -> npt.NDArray[np.float32]:
        if not cut.has_features:
            raise DataError(f"cut {cut.id} has no stored features", _COMPUTE_HINT)
        try:
            features = cut.load_features()
        except Exception as error:  # lhotse raises what its many back ends raise
            raise DataError(
                f"the stored features of cut {cut.id} cannot be read: {error or type(error)}",
                _COMPUTE_HINT,
            ) from error
        shift_s = self.config.frame_shift / self.config.sample_rate
        if features.ndim != 2 or features.shape[1] != self.config.num_mel_bins:
            raise DataError(
                f"the stored features of cut {cut.id} have shape {features.shape}, not "
                f"(T, {self.config.num_mel_bins})",
                _COMPUTE_HINT,
            )
        if abs(float(cut.frame_shift) - shift_s) > 1e-6:
            raise DataError(
                f"the stored features of cut {cut.id} come every {1000 * cut.frame_shift:g} ms, "
                f"not every {1000 * shift_s:g} ms",
                _COMPUTE_HINT,
            )
        return np.ascontiguousarray(features, np.float32)
