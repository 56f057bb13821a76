"""Batches: shapes, padding, and rows that do not depend on batch mates or on the order of calls."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut

from snowmelt.audio.fbank import PADDING_VALUE, FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.augment import SpecAugmentConfig
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.data.cuts import AudioCache
from tests.data.fakes import LetterTokenizer, noise_cut

_LENGTHS = (16000, 8000, 24050)


@pytest.fixture
def cuts(tmp_path: Path) -> list[MonoCut]:
    texts = ("A B", "C", "")
    return [
        noise_cut(tmp_path, f"cut{n}", length, text)
        for n, (length, text) in enumerate(zip(_LENGTHS, texts, strict=True))
    ]


def _rows(batch: Batch) -> dict[str, torch.Tensor]:
    return {
        cut_id: batch.features[n, : batch.feature_lens[n]] for n, cut_id in enumerate(batch.cut_ids)
    }


def test_plain_batch(cuts: list[MonoCut]) -> None:
    dataset = AsrDataset(cuts, LetterTokenizer())
    assert len(dataset) == 3
    assert dataset.durations == [1.0, 0.5, 24050 / 16000]
    batch = dataset.get([2, 0, 1], epoch=0)
    assert batch.features.shape == (3, 150, 80) and batch.features.dtype == torch.float32
    assert batch.feature_lens.tolist() == [150, 100, 50]
    assert batch.token_ids.tolist() == [[0, 0], [3, 4], [5, 0]]
    assert batch.token_lens.tolist() == [0, 2, 1]
    assert {t.dtype for t in (batch.feature_lens, batch.token_ids, batch.token_lens)} == {
        torch.int64
    }
    assert batch.cut_ids == ("cut2", "cut0", "cut1")
    assert (batch.features[2, 50:] == math.log(1e-10)).all() and PADDING_VALUE < -23.02
    samples, _ = soundfile.read(cuts[1].recording.sources[0].source, dtype="float32")
    assert np.array_equal(batch.features[2, :50].numpy(), fbank(samples))


def test_only_utterances_without_a_transcript(cuts: list[MonoCut]) -> None:
    batch = AsrDataset(cuts, LetterTokenizer()).get([2], epoch=0)
    assert batch.token_ids.shape == (1, 0)
    assert batch.token_ids.dtype == torch.int64


def test_augmented_rows_depend_on_seed_epoch_and_cut_only(cuts: list[MonoCut]) -> None:
    def dataset(seed: int) -> AsrDataset:
        return AsrDataset(
            cuts,
            LetterTokenizer(),
            spec_augment=SpecAugmentConfig(),
            max_tail_s=0.5,
            seed=seed,
        )

    together = _rows(dataset(1).get([0, 1, 2], epoch=4))
    other = dataset(1)
    other.get([2, 1], epoch=3)
    for n in (2, 0, 1):
        ((cut_id, row),) = _rows(other.get([n], epoch=4)).items()
        assert torch.equal(row, together[cut_id])
    for changed in (dataset(2).get([0], epoch=4), dataset(1).get([0], epoch=5)):
        row = _rows(changed)["cut0"]
        assert row.shape != together["cut0"].shape or not torch.equal(row, together["cut0"])


def test_tail_is_digital_silence_of_varying_length(cuts: list[MonoCut]) -> None:
    dataset = AsrDataset(cuts, LetterTokenizer(), max_tail_s=0.5)
    num_frames = set()
    for epoch in range(30):
        batch = dataset.get([0], epoch)
        num_frames.add(int(batch.feature_lens[0]))
        floor = math.log(1.1920928955078125e-07)
        assert torch.allclose(batch.features[0, 102:], torch.tensor(floor))
        assert (batch.features[0, :97] > floor + 1).any(dim=1).all()
    assert len(num_frames) > 15
    assert 100 <= min(num_frames) < 110 and 140 < max(num_frames) <= 150


def test_data_sets_can_share_a_cache(cuts: list[MonoCut], tmp_path: Path) -> None:
    cache = AudioCache()
    expected = AsrDataset(cuts, LetterTokenizer(), cache=cache).get([0], 0)
    (tmp_path / "cut0.wav").unlink()
    batch = AsrDataset(cuts, LetterTokenizer(), cache=cache).get([0], 0)
    assert torch.equal(batch.features, expected.features)


def test_other_sample_rates_are_refused(cuts: list[MonoCut]) -> None:
    dataset = AsrDataset(cuts, LetterTokenizer(), fbank_config=FbankConfig(sample_rate=8000))
    with pytest.raises(DataError, match="cut0 has 16000 Hz, the features are computed at 8000 Hz"):
        dataset.get([0], 0)
