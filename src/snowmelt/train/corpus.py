"""Which batches does a run see? Cuts of a corpus, filtered, in batches of similar length.

Invariant: the batches of an epoch are a function of (seed, epoch) and of the number of ranks.
"""

import logging
from pathlib import Path
from typing import Final

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import DataError
from snowmelt.data.augment import SpecAugmentConfig
from snowmelt.data.batch import AsrDataset
from snowmelt.data.corpora import get_corpus
from snowmelt.data.cuts import AudioCache, with_speed_copies
from snowmelt.data.filter import DroppedCuts, filter_cuts
from snowmelt.data.sampler import DurationBatchSampler
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.distributed import Ranks

__all__ = ["TrainingCorpus"]

_logger = logging.getLogger(__name__)

# Enough that mean and deviation do not depend on who happens to be among them.
_NUM_STATISTICS_UTTERANCES: Final = 200


class TrainingCorpus:
    """Batches of one corpus for one process of a run.

    Args:
        config: data, feature and training settings.
        tokenizer: turns transcripts into token ids.
        data_dir: folder that holds the prepared corpus in a folder of its name.
        ranks: this process among all.
    """

    def __init__(
        self, config: ExperimentConfig, tokenizer: Tokenizer, data_dir: Path, ranks: Ranks
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._ranks = ranks
        data, seed = config.data, config.train.seed
        self._corpus = get_corpus(data.corpus, data_dir / data.corpus, seed=seed)
        # One cache for all epochs: a small corpus is read from disk once.
        self._cache = AudioCache()
        self._has_reported = not ranks.is_main

    def training_epoch(self, epoch: int) -> tuple[AsrDataset, list[list[int]]]:
        """Data set of an epoch (from 1) and this rank's batches of it, in order.

        Raises:
            DataError: no utterance of the corpus can be learnt from.
        """
        data, seed = self._config.data, self._config.train.seed
        cuts = self._corpus.cuts("train", epoch=epoch)
        if data.speed_perturb:
            cuts = with_speed_copies(cuts)
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
                f"no utterance of {data.corpus} can be learnt from: {dropped}",
                hint="change --min-utterance-s and --max-utterance-s, or look at the transcripts",
            )
        augment = SpecAugmentConfig(time_warp_factor=data.spec_aug_time_warp_factor)
        dataset = AsrDataset(
            kept,
            self._tokenizer,
            fbank_config=self._config.features,
            spec_augment=augment if data.enable_spec_aug else None,
            max_tail_s=data.max_tail_s,
            has_frame_tokens=self._config.train.frame_loss_scale > 0.0,
            seed=seed,
            cache=self._cache,
        )
        sampler = DurationBatchSampler(
            dataset.durations,
            data.max_duration,
            seed=seed,
            num_buckets=data.num_buckets,
            world_size=self._ranks.world_size,
            rank=self._ranks.rank,
        )
        return dataset, sampler.batches(epoch)

    def dev(self) -> tuple[AsrDataset, list[list[int]]]:
        """Data set of the dev split and this rank's batches of it."""
        dataset = AsrDataset(
            self._corpus.cuts("dev"),
            self._tokenizer,
            fbank_config=self._config.features,
            has_frame_tokens=self._config.train.frame_loss_scale > 0.0,
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
            cache=self._cache,
        )
        step = max(1, len(dataset) // _NUM_STATISTICS_UTTERANCES)
        rows = [dataset.get([n], epoch=0).features[0] for n in range(0, len(dataset), step)]
        features = torch.cat(rows).double()
        return float(features.mean()), float(features.std())

    def _report(self, dropped: DroppedCuts) -> None:
        """Log what is left out, once a run: mostly the same in every epoch."""
        if self._has_reported or not dropped.reasons:
            return
        self._has_reported = True
        for cut_id, reason in dropped.reasons:
            _logger.info("Left out of training: %s, %s", cut_id, reason)
        _logger.warning("%s", dropped)
