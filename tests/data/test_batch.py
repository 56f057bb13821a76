"""Batches: shapes, padding, and rows that do not depend on batch mates or on the order of calls."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from snowmelt.audio.fbank import PADDING_VALUE, FbankConfig, fbank
from snowmelt.core.errors import DataError
from snowmelt.data.augment import SpecAugmentConfig
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.data.concatenate import Concatenation
from snowmelt.data.cuts import AudioCache
from snowmelt.data.features import FeatureReader
from snowmelt.data.noise import NoiseMixer
from snowmelt.presets.frames import LSTM_FRONT_END, ZIPFORMER_FRONT_END
from tests.data.fakes import LetterTokenizer, noise_cut, with_stored_features

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


def test_augmented_rows_depend_on_seed_epoch_and_cut_only(
    cuts: list[MonoCut], tmp_path: Path
) -> None:
    pieces = [noise_cut(tmp_path, f"noise{n}", 9000 + n) for n in range(5)]

    def dataset(seed: int) -> AsrDataset:
        return AsrDataset(
            cuts,
            LetterTokenizer(),
            noise=NoiseMixer(pieces, FeatureReader()),
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


def test_some_utterances_begin_with_their_first_sound(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(8000) / 5)
    sound = np.concatenate([np.zeros(8000), tone, np.zeros(4000)])
    soundfile.write(tmp_path / "a.wav", sound, 16000)
    cut = Recording.from_file(tmp_path / "a.wav").to_cut()
    cut.supervisions = [SupervisionSegment("a", cut.recording_id, 0.0, cut.duration, text="A B")]
    dataset = AsrDataset([cut], LetterTokenizer(), cut_edges=0.5)
    batches = [dataset.get([0], epoch) for epoch in range(40)]
    # 1.25 s, or the half second of the tone.
    num_frames = [int(batch.feature_lens[0]) for batch in batches]
    assert set(num_frames) == {125, 50} and 10 < num_frames.count(50) < 30
    assert all(batch.token_ids.tolist() == batches[0].token_ids.tolist() for batch in batches)
    again = AsrDataset([cut], LetterTokenizer(), cut_edges=0.5).get([0], 3)
    assert torch.equal(again.features, batches[3].features)
    assert dataset.durations == [1.25]


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


def test_noise_is_mixed_into_some_utterances_in_some_epochs(
    cuts: list[MonoCut], tmp_path: Path
) -> None:
    noise = NoiseMixer([noise_cut(tmp_path, "noise", 16000)], FeatureReader())
    plain = AsrDataset(cuts, LetterTokenizer()).get([0], epoch=0)
    noisy = AsrDataset(cuts, LetterTokenizer(), noise=noise)
    is_clean = []
    for epoch in range(20):
        batch = noisy.get([0], epoch)
        assert batch.feature_lens.tolist() == [100]
        is_clean.append(torch.equal(batch.features, plain.features))
        assert (batch.features >= plain.features - 1e-4).all()
    assert 5 <= sum(is_clean) <= 15


def test_noise_comes_before_masks(cuts: list[MonoCut], tmp_path: Path) -> None:
    noise = NoiseMixer([noise_cut(tmp_path, "noise", 16000)], FeatureReader(), probability=1.0)
    masks = SpecAugmentConfig(p=1.0, num_frame_masks=0, num_feature_masks=9)
    batch = AsrDataset(cuts, LetterTokenizer(), noise=noise, spec_augment=masks).get([0], epoch=0)
    # A masked band is flat.
    assert (batch.features[0].std(dim=0) == 0.0).any()


def test_stored_features_are_used_when_asked_for(cuts: list[MonoCut], tmp_path: Path) -> None:
    features = np.full((100, 80), 5.0, np.float32)
    with_stored_features(cuts[0], tmp_path, features)
    computed = AsrDataset(cuts, LetterTokenizer()).get([0], 0)
    assert not (computed.features == 5.0).any()
    dataset = AsrDataset(cuts, LetterTokenizer(), has_stored_features=True)
    assert (dataset.get([0], 0).features == 5.0).all()
    with pytest.raises(DataError, match="cut cut1 has no stored features"):
        dataset.get([0, 1], 0)


def test_joined_utterances_are_one_row(cuts: list[MonoCut], tmp_path: Path) -> None:
    joined = AsrDataset(
        cuts,
        LetterTokenizer(),
        concatenation=Concatenation(duration_factor=1.2, gap_s=0.1),
        spec_augment=SpecAugmentConfig(),
        seed=1,
    )
    batch = joined.get([0, 1, 2], epoch=0)
    # 1.503 s are the longest; 1 s and 0.5 s fit with a gap into 1.8 s.
    assert batch.cut_ids == ("cut2", "cut0+cut1")
    assert batch.feature_lens.tolist() == [150, 160]
    assert batch.token_ids.tolist() == [[0, 0, 0], [3, 4, 5]]
    again = joined.get([2, 1, 0], epoch=0)
    assert torch.equal(again.features, batch.features)


def test_stored_features_of_joined_utterances(cuts: list[MonoCut], tmp_path: Path) -> None:
    for n, value in ((0, 5.0), (1, 7.0)):
        num_frames = cuts[n].num_samples // 160
        with_stored_features(cuts[n], tmp_path, np.full((num_frames, 80), value, np.float32))
    dataset = AsrDataset(
        cuts[:2],
        LetterTokenizer(),
        has_stored_features=True,
        concatenation=Concatenation(duration_factor=2.0, gap_s=0.1),
    )
    (row,) = dataset.get([0, 1], 0).features
    assert row.shape == (160, 80)
    assert (row[:100] == 5.0).all() and (row[100:110] < -10.0).all() and (row[110:] == 7.0).all()


def test_frame_tokens_stand_where_the_encoder_looks(cuts: list[MonoCut]) -> None:
    cut = cuts[0]
    # Ends between the middles of what the two encoders see in frame 6: 0.285 s and 0.295 s.
    cut.supervisions[0].alignment = {"word": [AlignmentItem("A", 0.1, 0.19)]}
    labels = {
        front_end: AsrDataset([cut], LetterTokenizer(), has_frame_tokens=True, front_end=front_end)
        .get([0], 0)
        .frame_tokens[0]
        .tolist()
        for front_end in (ZIPFORMER_FRONT_END, LSTM_FRONT_END)
    }
    assert labels[ZIPFORMER_FRONT_END] == [0] * 2 + [3] * 4 + [0] * 17
    assert labels[LSTM_FRONT_END] == [0] * 2 + [3] * 5 + [0] * 16
