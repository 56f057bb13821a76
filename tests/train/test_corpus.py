"""Which batches a run sees, and what it is told about those it does not see."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.cut import Cut

from snowmelt.audio.fbank import FbankConfig
from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import DataError
from snowmelt.data.cuts import AudioCache
from snowmelt.presets.data import MixPart
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.corpus import TrainingCorpora, TrainingCorpus
from snowmelt.train.distributed import Ranks
from tests.data.fakes import with_stored_features
from tests.train.noise import NoiseCorpus


def _corpora(
    config: ExperimentConfig, tokenizer: Tokenizer, data_dir: Path, ranks: Ranks | None = None
) -> TrainingCorpora:
    return TrainingCorpora(
        config,
        tokenizer,
        ranks or Ranks(),
        data_dir=data_dir,
        manifest_dir=data_dir / "fbank",
        musan_dir=data_dir / "noise",
    )


def _corpus(
    config: ExperimentConfig, tokenizer: Tokenizer, data_dir: Path, ranks: Ranks | None = None
) -> TrainingCorpus:
    return _corpora(config, tokenizer, data_dir, ranks).corpora[0]


def _ids(corpora: TrainingCorpora, epoch: int) -> list[tuple[str, ...]]:
    steps = corpora.plan(epoch, first_step=0, positions={}).steps
    return [batch.cut_ids for step in steps for batch in corpora.read(step)]


ALL = [f"utt{n:02d}" for n in range(8)]


def test_batches_follow_from_seed_and_epoch(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    one, other = (_corpora(config, tokenizer, data_dir) for _ in range(2))
    first = _ids(one, 1)
    assert sorted(i for ids in first for i in ids) == ALL
    assert _ids(other, 2) != first
    assert _ids(other, 1) == first


def test_ranks_share_an_epoch(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    parts = [_ids(_corpora(config, tokenizer, data_dir, Ranks(rank, 2)), 1) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    assert sorted(i for part in parts for ids in part for i in ids) == ALL


def test_a_step_may_have_several_batches(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    plain = _corpora(config, tokenizer, data_dir)
    config = replace(config, train=replace(config.train, target_duration=6.1))
    large = _corpora(config, tokenizer, data_dir)
    # Batches of 3 s: two of them are nearest to 6.1 s, and two processes make as much at once.
    steps = large.plan(1, first_step=0, positions={}).steps
    assert [len(step) for step in steps] == [2, 1]
    assert _ids(large, 1) == _ids(plain, 1)
    both = _corpora(config, tokenizer, data_dir, Ranks(0, 2))
    assert {len(step) for step in both.plan(1, first_step=0, positions={}).steps} == {1}


def test_several_corpora(data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer) -> None:
    mix = (MixPart("noise", 0.3), MixPart("murmur", 0.7, speed_perturb=True))
    config = replace(config, data=replace(config.data, mix=mix))
    corpora = _corpora(config, tokenizer, data_dir)
    plan = corpora.plan(1, first_step=0, positions={})
    ids: dict[int, list[str]] = {0: [], 1: []}
    for step in plan.steps:
        for batch in corpora.read(step):
            ids[step[0].stream] += batch.cut_ids
    assert sorted(ids[0]) == ALL
    assert ids[1] and set(ids[1]) <= {f"{i}{s}" for i in ALL for s in ("", "_sp0.9", "_sp1.1")}
    # The other corpus has begun its next epochs, and goes on in ours with the batch after its last.
    (epoch, used) = plan.positions["murmur"]
    ours = [step[0] for step in plan.steps if step[0].stream == 1]
    assert epoch > 1 and ours[-1].epoch == epoch
    after = corpora.plan(2, first_step=len(plan.steps), positions=plan.positions)
    again = next(step[0] for step in after.steps if step[0].stream == 1)
    assert again.indices == corpora.corpora[1].batches(again.epoch)[used * (again.epoch == epoch)]


def test_noise_is_mixed_into_training_only(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    clean = _corpus(config, tokenizer, data_dir)
    config = replace(config, data=replace(config.data, enable_musan=True))
    noisy = _corpus(config, tokenizer, data_dir)
    rows = range(8)
    equal = [
        noisy.dataset(1).get([n], 1).features.equal(clean.dataset(1).get([n], 1).features)
        for n in rows
    ]
    assert 0 < sum(equal) < len(equal)
    both = [corpus.dev()[0].get([0], 0).features for corpus in (clean, noisy)]
    assert both[0].equal(both[1])


def test_noise_is_as_loud_as_was_asked_for(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    def distance(snr_db: float) -> float:
        settings = {"musan_min_snr_db": snr_db, "musan_max_snr_db": snr_db}
        data = replace(config.data, enable_musan=True, **settings)
        noisy = _corpus(replace(config, data=data), tokenizer, data_dir).dataset(1)
        clean = _corpus(config, tokenizer, data_dir).dataset(1)
        return sum(
            float((noisy.get([n], 1).features - clean.get([n], 1).features).abs().sum())
            for n in range(8)
        )

    assert distance(0.0) > 2 * distance(20.0) > 0.0


def test_speed_copies(data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer) -> None:
    config = replace(config, data=replace(config.data, speed_perturb=True))
    assert len(_corpus(config, tokenizer, data_dir).dataset(1)) == 24


def test_utterances_are_cut_at_their_edges_in_training_alone(
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_ids: list[str] = []

    def watched(cut: Cut, cache: AudioCache) -> Cut:
        cut_ids.append(cut.id)
        return cut

    monkeypatch.setattr("snowmelt.data.batch.cut_at_the_edges", watched)
    for share in (0.0, 1.0):
        data = replace(config.data, cut_edges=share)
        corpus = _corpus(replace(config, data=data), tokenizer, data_dir)
        batch = corpus.dataset(1).get([0, 1], 1)
        corpus.dev()[0].get([0], 0)
        assert cut_ids == (list(batch.cut_ids) if share else [])


_STORED = 7.0


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """Gives all utterances stored features, but for those whose ids are put into the set."""
    without: set[str] = set()
    cuts_of = NoiseCorpus.cuts

    def cuts(self: NoiseCorpus, split: str, epoch: int = 0) -> CutSet:
        cuts = cuts_of(self, split, epoch)
        for cut in cuts:
            if cut.id not in without:
                rows = np.full((cut.num_samples // 160, 80), _STORED, np.float32)
                with_stored_features(cut, tmp_path, rows)
        return cuts

    monkeypatch.setattr(NoiseCorpus, "cuts", cuts)
    return without


def _is_stored(corpus: TrainingCorpus) -> bool:
    batches = [corpus.dataset(1).get([0], 1), corpus.dev()[0].get([0], 0)]
    (is_stored,) = {bool((batch.features[0, :60] == _STORED).all()) for batch in batches}
    return is_stored


def test_features_are_taken_as_they_were_prepared(
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    stored: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = replace(config, data=replace(config.data, enable_spec_aug=False))

    def corpus(**changes: Any) -> TrainingCorpus:
        caplog.clear()
        changed = replace(config, data=replace(config.data, **changes))
        with caplog.at_level(logging.INFO):
            return _corpus(changed, tokenizer, data_dir)

    assert _is_stored(corpus())
    assert caplog.messages == [
        "Features of noise: those that were stored (--on-the-fly-feats 1 computes them instead)"
    ]
    # What is asked for counts.
    assert not _is_stored(corpus(on_the_fly_feats=True))
    assert _is_stored(corpus(on_the_fly_feats=False))
    assert caplog.messages == []
    # Copies at another speed would have none.
    assert not _is_stored(corpus(speed_perturb=True))
    assert "computed from the sound, since the copies at 0.9" in caplog.text
    with pytest.raises(DataError, match="no stored features of speed copies"):
        _is_stored(corpus(speed_perturb=True, on_the_fly_feats=False))
    stored.add("utt11")
    assert not _is_stored(corpus())
    assert "computed from the sound, since 11 of 12 utterances have stored ones" in caplog.text
    stored |= set(ALL) | {f"utt{n:02d}" for n in range(8, 12)}
    assert not _is_stored(corpus())
    assert caplog.messages == []


def test_stored_features_of_another_kind_are_not_taken(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer, stored: set[str]
) -> None:
    config = replace(
        config,
        model=replace(config.model, feature_dim=40),
        features=FbankConfig(num_mel_bins=40),
    )
    features = _corpus(config, tokenizer, data_dir).dataset(1).get([0], 1).features
    assert features.shape[2] == 40


def test_what_is_left_out_is_said_once(
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = replace(config, data=replace(config.data, min_utterance_s=0.7))
    corpus = _corpus(config, tokenizer, data_dir)
    with caplog.at_level(logging.INFO):
        corpus.batches(1)
        corpus.batches(2)
    assert caplog.messages == [
        "Left out of training: utt00, shorter than 0.7 s",
        "Left out of training: utt01, shorter than 0.7 s",
        "dropped 2 of 8 cuts (25 %): 2 shorter than 0.7 s",
    ]
    caplog.clear()
    _corpus(config, tokenizer, data_dir, Ranks(1, 2)).batches(1)
    assert caplog.messages == []


def test_nothing_to_learn_from(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, data=replace(config.data, max_utterance_s=0.1))
    with pytest.raises(DataError, match="no utterance of noise can be learnt from: dropped 8 of 8"):
        _corpus(config, tokenizer, data_dir).batches(1)


def test_dev_is_not_shuffled_and_complete(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    corpus = _corpus(config, tokenizer, data_dir)
    dataset, batches = corpus.dev()
    assert sorted(n for batch in batches for n in batch) == [0, 1, 2, 3]
    batch = dataset.get(batches[0], epoch=0)
    assert batch.features.equal(dataset.get(batches[0], epoch=9).features)


def test_statistics_of_noise(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    mean, std = _corpus(config, tokenizer, data_dir).feature_statistics()
    assert -6.0 < mean < 6.0
    assert 0.5 < std < 5.0


def test_stored_features_cannot_be_cut_at_the_edges(
    data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer, stored: set[str]
) -> None:
    data = replace(config.data, cut_edges=0.5, on_the_fly_feats=False)
    with pytest.raises(DataError, match="where its speech begins"):
        _corpus(replace(config, data=data), tokenizer, data_dir).dataset(1)
