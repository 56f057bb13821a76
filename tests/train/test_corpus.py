"""Which batches a run sees, and what it is told about those it does not see."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import DataError
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.corpus import TrainingCorpus
from snowmelt.train.distributed import Ranks


def _ids(corpus: TrainingCorpus, epoch: int) -> list[tuple[str, ...]]:
    dataset, batches = corpus.training_epoch(epoch)
    return [dataset.get(indices, epoch).cut_ids for indices in batches]


def test_batches_follow_from_seed_and_epoch(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    one, other = (TrainingCorpus(config, tokenizer, data_dir, Ranks()) for _ in range(2))
    first = _ids(one, 1)
    assert sorted(i for ids in first for i in ids) == [f"utt{n:02d}" for n in range(8)]
    assert _ids(other, 2) != first
    assert _ids(other, 1) == first


def test_ranks_share_an_epoch(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    parts = [
        _ids(TrainingCorpus(config, tokenizer, data_dir, Ranks(rank, 2)), 1) for rank in range(2)
    ]
    assert len(parts[0]) == len(parts[1])
    seen = [i for part in parts for ids in part for i in ids]
    assert sorted(seen) == [f"utt{n:02d}" for n in range(8)]


def test_speed_copies(data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer) -> None:
    config = replace(config, data=replace(config.data, speed_perturb=True))
    dataset, _ = TrainingCorpus(config, tokenizer, data_dir, Ranks()).training_epoch(1)
    assert len(dataset) == 24


def test_what_is_left_out_is_said_once(
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = replace(config, data=replace(config.data, min_utterance_s=0.7))
    corpus = TrainingCorpus(config, tokenizer, data_dir, Ranks())
    with caplog.at_level(logging.INFO):
        corpus.training_epoch(1)
        corpus.training_epoch(2)
    assert caplog.messages == [
        "Left out of training: utt00, shorter than 0.7 s",
        "Left out of training: utt01, shorter than 0.7 s",
        "dropped 2 of 8 cuts (25 %): 2 shorter than 0.7 s",
    ]
    caplog.clear()
    TrainingCorpus(config, tokenizer, data_dir, Ranks(1, 2)).training_epoch(1)
    assert caplog.messages == []


def test_nothing_to_learn_from(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, data=replace(config.data, max_utterance_s=0.1))
    with pytest.raises(DataError, match="no utterance of noise can be learnt from: dropped 8 of 8"):
        TrainingCorpus(config, tokenizer, data_dir, Ranks()).training_epoch(1)


def test_dev_is_not_shuffled_and_complete(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    corpus = TrainingCorpus(config, tokenizer, data_dir, Ranks())
    dataset, batches = corpus.dev()
    assert sorted(n for batch in batches for n in batch) == [0, 1, 2, 3]
    batch = dataset.get(batches[0], epoch=0)
    assert batch.features.equal(dataset.get(batches[0], epoch=9).features)


def test_statistics_of_noise(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    mean, std = TrainingCorpus(config, tokenizer, data_dir, Ranks()).feature_statistics()
    assert -6.0 < mean < 6.0
    assert 0.5 < std < 5.0
