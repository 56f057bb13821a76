"""What does a run learn from? Corpora, batches, augmentation.

Invariant: numbers and names only; no files.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from snowmelt.core.errors import ConfigError
from snowmelt.presets.ranges import require_numbers

__all__ = ["DataConfig", "MixPart"]

# The original's short names, in logs and for the decoders and joiners of a mix.
_LABELS: Final = {"librispeech": "libri", "gigaspeech": "giga"}


@dataclass(frozen=True)
class MixPart:
    """One of several corpora that a run learns from at once.

    Attributes:
        corpus: its name.
        probability: of a batch to be of this corpus.
        speed_perturb: whether copies at 0.9 and 1.1 times the speed are added.
        enable_spec_aug: whether its features are masked.
    """

    corpus: str
    probability: float
    speed_perturb: bool = False
    enable_spec_aug: bool = True

    @property
    def label(self) -> str:
        """Its name in logs; also of its decoder and joiner, where it is not the main corpus."""
        return _LABELS.get(self.corpus, self.corpus)


@dataclass(frozen=True)
class DataConfig:
    """Which corpus a run learns from, and what is done to it on the way.

    With a `mix` of several corpora the first one is the main one: its batches make up an epoch.

    Raises:
        ConfigError: a value is out of its range, or the mix is none.
    """

    corpus: str = "digits"
    mix: tuple[MixPart, ...] = ()
    tokenizer: Literal["words", "chars", "bpe"] = "words"
    vocab_size: int = 500  # for bpe
    # Parts of a corpus that is read from manifests; names replace the corpus's usual ones.
    full_libri: bool = True
    mini_libri: bool = False
    train_parts: tuple[str, ...] = ()
    dev_parts: tuple[str, ...] = ()
    test_parts: tuple[str, ...] = ()
    on_the_fly_feats: bool | None = None  # None: stored features where there are fitting ones
    max_duration: float = 200.0
    bucketing_sampler: bool = True
    num_buckets: int = 30
    shuffle: bool = True
    drop_last: bool = False
    concatenate_cuts: bool = False
    duration_factor: float = 1.0  # longest joined utterance, as a multiple of the batch's longest
    gap: float = 1.0  # seconds of silence between joined utterances
    min_utterance_s: float = 0.3
    max_utterance_s: float = 20.0
    speed_perturb: bool = False
    enable_musan: bool = False
    musan_min_snr_db: float = 10.0
    musan_max_snr_db: float = 20.0
    enable_spec_aug: bool = True
    spec_aug_time_warp_factor: int = 80
    spec_aug_num_frame_masks: int = 10
    vtlp_warp: float = 0.0  # frequencies are stretched by a factor within 1 +- this
    filter_augment_db: float = 0.0  # a random filter has gains within +- this
    cut_edges: float = 0.0  # share of the utterances without any silence around them
    max_tail_s: float = 0.0  # up to this much digital silence is appended in training
    num_workers: int = 1

    def __post_init__(self) -> None:
        require_numbers(
            self,
            positive=(
                "vocab_size",
                "max_duration",
                "num_buckets",
                "max_utterance_s",
                "num_workers",
            ),
            not_negative=("min_utterance_s", "max_tail_s", "gap", "spec_aug_num_frame_masks"),
        )
        if not 0.0 <= self.cut_edges <= 1.0:
            raise ConfigError(
                f"cut_edges is {self.cut_edges:g}, it must be from 0 to 1",
                hint="it is the share of the utterances that are cut",
            )
        if self.duration_factor < 1.0:
            raise ConfigError(
                f"duration_factor is {self.duration_factor:g}, it must be at least 1",
                hint="1 joins utterances up to the length of the longest of their batch",
            )
        if self.musan_min_snr_db > self.musan_max_snr_db:
            raise ConfigError(
                f"musan_min_snr_db is {self.musan_min_snr_db:g}, above musan_max_snr_db, "
                f"{self.musan_max_snr_db:g}",
                hint="noise is drawn between the two",
            )
        if self.mini_libri and self.full_libri:
            raise ConfigError(
                "Cannot set both mini-libri and full-libri flags to True",
                hint="mini LibriSpeech is asked for with --mini-libri 1 --full-libri 0",
            )
        if self.mix:
            self._check_mix()

    @property
    def parts(self) -> tuple[MixPart, ...]:
        """The corpora that are learnt from: those of the mix, or the only one."""
        if self.mix:
            return self.mix
        return (MixPart(self.corpus, 1.0, self.speed_perturb, self.enable_spec_aug),)

    @property
    def extra_heads(self) -> tuple[str, ...]:
        """Names of the decoders and joiners beside the main one."""
        return tuple(part.label for part in self.parts[1:])

    def part_of_head(self, head: str) -> MixPart:
        """The corpus that a head belongs to, by its label or name; the main one where none fits."""
        return next(
            (part for part in self.parts if head in (part.label, part.corpus)), self.parts[0]
        )

    def _check_mix(self) -> None:
        names = [part.corpus for part in self.mix]
        twice = [name for name, count in Counter(names).items() if count > 1]
        shares = [part.probability for part in self.mix]
        if twice:
            raise ConfigError(f"mix names {twice[0]} twice", hint="give each corpus one share")
        if names[0] != self.corpus:
            raise ConfigError(
                f"the main corpus is {self.corpus}, the mix begins with {names[0]}",
                hint="name the main corpus first",
            )
        if not all(0.0 <= share <= 1.0 for share in shares) or shares[0] == 0.0:
            shown = ",".join(f"{part.corpus}={part.probability:g}" for part in self.mix)
            raise ConfigError(
                f"mix is {shown}: shares lie between 0 and 1, the first above 0",
                hint="write for example --mix librispeech=0.5,gigaspeech=0.5",
            )
        if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"the shares of mix add up to {sum(shares):g}, not to 1",
                hint="they are the probabilities of a batch to be of each corpus",
            )
