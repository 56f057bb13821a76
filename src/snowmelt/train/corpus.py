"""Which batches does a run see? Cuts of its corpora, filtered, in batches of similar length.

Invariant: the batches of an epoch are a function of (seed, epoch), of where the other corpora of a
mix stand, and of the number of ranks.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Final

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import DataError
from snowmelt.data.augment import SpecAugmentConfig
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.data.concatenate import Concatenation
from snowmelt.data.corpora import Corpus, open_corpus, selection_of
from snowmelt.data.cuts import AudioCache, has_speed_copies, with_speed_copies
from snowmelt.data.features import FeatureReader, why_not_stored
from snowmelt.data.filter import DroppedCuts, filter_cuts
from snowmelt.data.mix import CorpusBatches, MixItem, MixPlan, plan_epoch
from snowmelt.data.noise import NoiseMixer, load_noise
from snowmelt.data.sampler import DurationBatchSampler
from snowmelt.data.voices import VoiceAugmentConfig
from snowmelt.presets.data import MixPart
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.distributed import Ranks

__all__ = ["TrainingCorpora", "TrainingCorpus", "takes_stored_features"]

_logger = logging.getLogger(__name__)

# Enough that mean and deviation do not depend on who happens to be among them.
_NUM_STATISTICS_UTTERANCES: Final = 200

# Data sets of this many epochs are kept: the one that is read and the one that follows.
_EPOCHS_KEPT: Final = 2


class TrainingCorpora:
    """All corpora of a run, for one process of it; the first one is the main one.

    Args:
        config: data, feature and training settings.
        tokenizer: turns transcripts into token ids.
        ranks: this process among all.
        data_dir: folder that holds each prepared corpus in a folder of its name.
        manifest_dir: folder of the manifests of corpora that are no archives.
        musan_dir: where noise is found, if the settings ask for it.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        ranks: Ranks,
        *,
        data_dir: Path,
        manifest_dir: Path,
        musan_dir: Path,
    ) -> None:
        self._seed = config.train.seed
        self._parts = config.data.parts
        # One cache for all: a small corpus is read from disk once.
        cache = AudioCache()
        noise = None
        if config.data.enable_musan:
            noise = _noise_mixer(config, musan_dir, cache)
        self.corpora = [
            TrainingCorpus(
                part,
                open_corpus(
                    part.corpus,
                    data_dir,
                    manifest_dir,
                    seed=config.train.seed,
                    selection=selection_of(config.data, part.corpus),
                ),
                config,
                tokenizer,
                ranks,
                cache,
                noise,
            )
            for part in self._parts
        ]
        self._batches = [
            CorpusBatches(part.corpus, corpus.batches)
            for part, corpus in zip(self._parts, self.corpora, strict=True)
        ]
        target = config.train.target_duration
        per_batch = config.data.max_duration * ranks.world_size
        self._micro_batches = max(1, round(target / per_batch))
        if self._micro_batches > 1 and ranks.is_main:
            _logger.info("A step learns from %d batches of each process", self._micro_batches)

    def plan(
        self, epoch: int, *, first_step: int, positions: Mapping[str, tuple[int, int]]
    ) -> MixPlan:
        """What an epoch learns from, step by step; see `plan_epoch`."""
        return plan_epoch(
            self._batches,
            [part.probability for part in self._parts],
            seed=self._seed,
            epoch=epoch,
            first_step=first_step,
            positions=positions,
            micro_batches=self._micro_batches,
        )

    def read(self, step: tuple[MixItem, ...]) -> list[Batch]:
        """The batches of a step."""
        return [
            self.corpora[item.stream].dataset(item.epoch).get(item.indices, item.epoch)
            for item in step
        ]

    def label(self, stream: int) -> str:
        """Name of corpus number `stream` in logs; "" where it is the only one."""
        return self._parts[stream].label if len(self._parts) > 1 else ""

    def head(self, stream: int) -> str:
        """Name of its decoder and joiner; the main corpus has the main ones, ""."""
        return self._parts[stream].label if stream > 0 else ""

    def feature_statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the features of the main corpus."""
        return self.corpora[0].feature_statistics()


def _noise_mixer(config: ExperimentConfig, musan_dir: Path, cache: AudioCache) -> NoiseMixer:
    pieces = load_noise(musan_dir)
    # Noise may be a folder of sound files beside a corpus with stored features.
    is_stored = config.data.on_the_fly_feats is not True and not why_not_stored(
        pieces, config.features
    )
    return NoiseMixer(
        pieces,
        FeatureReader(config.features, cache, is_stored=is_stored),
        snr_range_db=(config.data.musan_min_snr_db, config.data.musan_max_snr_db),
    )


def takes_stored_features(
    corpus: Corpus, config: ExperimentConfig, part: MixPart, *, is_told: bool = False
) -> bool:
    """Whether a corpus is learnt from by the features that its preparation has left.

    Args:
        corpus: the corpus.
        config: what is wanted; where it is silent, stored features are taken if all utterances
            have fitting ones.
        part: how the corpus is varied.
        is_told: whether the choice is logged, where there was one.
    """
    if config.data.on_the_fly_feats is not None:
        return not config.data.on_the_fly_feats
    train = corpus.cuts("train")
    why_not = why_not_stored(chain(train, corpus.cuts("dev")), config.features)
    if not why_not and part.speed_perturb and not has_speed_copies(train):
        why_not = "the copies at 0.9 and 1.1 times the speed have none"
    if is_told and why_not != "none":
        _logger.info(
            "Features of %s: %s",
            part.corpus,
            f"computed from the sound, since {why_not}"
            if why_not
            else "those that were stored (--on-the-fly-feats 1 computes them instead)",
        )
    return not why_not


class TrainingCorpus:
    """Batches of one corpus for one process of a run.

    Args:
        part: how it is varied.
        corpus: the corpus itself.
        config: data, feature and training settings.
        tokenizer: turns transcripts into token ids.
        ranks: this process among all.
        cache: decoded recordings.
        noise: what is mixed into training utterances, if anything.
    """

    def __init__(
        self,
        part: MixPart,
        corpus: Corpus,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        ranks: Ranks,
        cache: AudioCache,
        noise: NoiseMixer | None,
    ) -> None:
        self._part = part
        self._config = config
        self._tokenizer = tokenizer
        self._ranks = ranks
        self._cache = cache
        self._corpus = corpus
        self._noise = noise
        self._datasets: OrderedDict[int, AsrDataset] = OrderedDict()
        # Readers are threads: two of them may ask for the same epoch.
        self._lock = threading.Lock()
        self._has_reported = not ranks.is_main
        self._has_stored_features = takes_stored_features(
            corpus, config, part, is_told=ranks.is_main
        )

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch (from 1), in order.

        Raises:
            DataError: no utterance of the corpus can be learnt from.
        """
        data = self._config.data
        dataset = self.dataset(epoch)
        sampler = DurationBatchSampler(
            dataset.durations,
            data.max_duration,
            shards=dataset.shards,
            shuffle=data.shuffle,
            seed=self._config.train.seed,
            num_buckets=data.num_buckets,
            has_buckets=data.bucketing_sampler,
            drop_last=data.drop_last,
            has_equal_ranks=True,
            world_size=self._ranks.world_size,
            rank=self._ranks.rank,
        )
        return sampler.batches(epoch)

    def dataset(self, epoch: int) -> AsrDataset:
        """The utterances of an epoch (from 1).

        Raises:
            DataError: no utterance of the corpus can be learnt from.
        """
        epoch = epoch if self._corpus.varies_with_epoch else 1
        with self._lock:
            if epoch not in self._datasets:
                self._datasets[epoch] = self._training_set(epoch)
                while len(self._datasets) > _EPOCHS_KEPT:
                    self._datasets.popitem(last=False)
            return self._datasets[epoch]

    def dev(self) -> tuple[AsrDataset, list[list[int]]]:
        """Data set of the dev split and this rank's batches of it."""
        dataset = AsrDataset(
            self._corpus.cuts("dev"),
            self._tokenizer,
            fbank_config=self._config.features,
            has_stored_features=self._has_stored_features,
            has_frame_tokens=self._config.train.frame_loss_scale > 0.0,
            front_end=self._config.model.front_end,
            cache=self._cache,
        )
        sampler = DurationBatchSampler(
            dataset.durations,
            self._config.data.max_duration,
            shuffle=False,
            world_size=self._ranks.world_size,
            rank=self._ranks.rank,
        )
        return dataset, sampler.batches(0)

    def feature_statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the features of some hundred training utterances."""
        # Without augmentation: masks and speed would only blur what is measured.
        dataset = AsrDataset(
            self._corpus.cuts("train"),
            self._tokenizer,
            fbank_config=self._config.features,
            has_stored_features=self._has_stored_features,
            cache=self._cache,
        )
        step = max(1, len(dataset) // _NUM_STATISTICS_UTTERANCES)
        rows = [dataset.get([n], epoch=0).features[0] for n in range(0, len(dataset), step)]
        features = torch.cat(rows).double()
        return float(features.mean()), float(features.std())

    def _training_set(self, epoch: int) -> AsrDataset:
        data = self._config.data
        cuts = self._corpus.cuts("train", epoch=epoch)
        # A preparation may have made the copies already.
        if self._part.speed_perturb and not has_speed_copies(cuts):
            if self._has_stored_features:
                raise DataError(
                    f"{self._part.corpus} has no stored features of speed copies",
                    hint="add --speed-perturb 0, or prepare the copies too",
                )
            cuts = with_speed_copies(cuts)
        if data.cut_edges and self._has_stored_features:
            raise DataError(
                f"the stored features of {self._part.corpus} cannot be cut where its speech begins",
                hint="add --on-the-fly-feats 1, or --cut-edges 0",
            )
        kept, dropped = filter_cuts(
            cuts,
            self._tokenizer,
            min_duration=data.min_utterance_s,
            max_duration=data.max_utterance_s,
            fbank_config=self._config.features,
        )
        self._report(dropped)
        if not len(kept):
            raise DataError(
                f"no utterance of {self._part.corpus} can be learnt from: {dropped}",
                hint="change --min-utterance-s and --max-utterance-s, or look at the transcripts",
            )
        augment = SpecAugmentConfig(
            time_warp_factor=data.spec_aug_time_warp_factor,
            num_frame_masks=data.spec_aug_num_frame_masks,
        )
        return AsrDataset(
            kept,
            self._tokenizer,
            fbank_config=self._config.features,
            has_stored_features=self._has_stored_features,
            concatenation=Concatenation(data.duration_factor, data.gap)
            if data.concatenate_cuts
            else None,
            noise=self._noise,
            voice_augment=VoiceAugmentConfig(data.vtlp_warp, data.filter_augment_db),
            spec_augment=augment if self._part.enable_spec_aug else None,
            cut_edges=data.cut_edges,
            max_tail_s=data.max_tail_s,
            has_frame_tokens=self._config.train.frame_loss_scale > 0.0,
            front_end=self._config.model.front_end,
            seed=self._config.train.seed,
            cache=self._cache,
        )

    def _report(self, dropped: DroppedCuts) -> None:
        """Log what is left out, once a run: mostly the same in every epoch."""
        if self._has_reported or not dropped.reasons:
            return
        self._has_reported = True
        for cut_id, reason in dropped.reasons:
            _logger.info("Left out of training: %s, %s", cut_id, reason)
        _logger.warning("%s", dropped)
