"""Losses on the dev sets: of each corpus, of all, and without a trace."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.presets.data import MixPart
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.build import new_state
from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.distributed import Ranks
from snowmelt.train.metrics import LossTotals
from snowmelt.train.prefetch import reader_threads
from snowmelt.train.validation import dev_losses

CPU = torch.device("cpu")


def _losses(
    config: ExperimentConfig, tokenizer: Tokenizer, data_dir: Path
) -> dict[str, LossTotals]:
    data = TrainingCorpora(
        config, tokenizer, Ranks(), data_dir=data_dir, manifest_dir=data_dir, musan_dir=data_dir
    )
    torch.manual_seed(1)
    state = new_state(config, tokenizer.vocab_size, CPU, Ranks())
    before = torch.get_rng_state()
    with reader_threads(1) as readers:
        losses = dev_losses(state, data, readers, CPU)
        assert dev_losses(state, data, readers, CPU) == losses
    assert state.objective.training and torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in state.objective.parameters())
    return losses


def test_one_corpus_has_no_name(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    losses = _losses(config, tokenizer, data_dir)
    assert list(losses) == [""] and losses[""].utterances == 4.0


def test_several_corpora_each_with_their_own_head(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    mix = (MixPart("noise", 0.5), MixPart("murmur", 0.5))
    config = replace(config, data=replace(config.data, mix=mix))
    losses = _losses(config, tokenizer, data_dir)
    assert list(losses) == ["noise", "murmur", ""]
    # The same utterances, another decoder and joiner.
    assert losses["noise"].frames == losses["murmur"].frames
    assert losses["noise"].pruned_loss != losses["murmur"].pruned_loss
    assert losses[""].loss == pytest.approx(losses["noise"].loss + losses["murmur"].loss)
