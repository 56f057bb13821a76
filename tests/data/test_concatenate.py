"""Joined utterances: the greedy rule, order of sound and text, names."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import MonoCut
from lhotse.dataset.cut_transforms.concatenate import concat_cuts

from snowmelt.core.errors import ConfigError
from snowmelt.data.concatenate import Concatenation, concatenated
from snowmelt.data.corpora.wav import whole_file_cut
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from tests.data.fakes import noise_cut


def _cuts(num_samples: list[int]) -> list[MonoCut]:
    return [
        whole_file_cut(f"c{n}", f"c{n}.wav", length, f"TEXT{n}", "someone")
        for n, length in enumerate(num_samples)
    ]


def test_sound_gap_sound(tmp_path: Path) -> None:
    long = noise_cut(tmp_path, "long", 20000, "ONE")
    short = noise_cut(tmp_path, "short", 3000, "TWO THREE")
    middle = noise_cut(tmp_path, "middle", 9000, "FOUR")
    joined = concatenated([short, long, middle], Concatenation(duration_factor=1.2, gap_s=0.05))
    assert [cut.id for cut in joined] == ["long+short", "middle"]
    assert cut_text(joined[0]) == "ONE TWO THREE"
    cache = AudioCache()
    samples = load_samples(joined[0], cache)
    assert joined[0].num_samples == len(samples) == 23800
    assert np.array_equal(samples[:20000], load_samples(long, cache))
    assert not samples[20000:20800].any()
    assert np.array_equal(samples[20800:], load_samples(short, cache))
    assert joined[1] is middle


def test_without_a_gap_and_over_several(tmp_path: Path) -> None:
    cuts = [noise_cut(tmp_path, f"c{n}", n, f"T{n}") for n in (16000, 4000, 6000, 5000)]
    joined = concatenated(cuts, Concatenation(gap_s=0.0))
    assert [cut.id for cut in joined] == ["c16000", "c6000+c4000+c5000"]
    cache = AudioCache()
    expected = np.concatenate([load_samples(cuts[n], cache) for n in (2, 1, 3)])
    assert np.array_equal(load_samples(joined[1], cache), expected)
    assert cut_text(joined[1]) == "T6000 T4000 T5000"


@settings(deadline=None, derandomize=True)
@given(
    num_samples=st.lists(st.integers(1600, 320000), min_size=1, max_size=12, unique=True),
    gap_s=st.sampled_from([0.1, 1.0]),
    factor=st.sampled_from([1.0, 1.5, 3.0]),
)
def test_the_same_groups_as_lhotse_makes(
    num_samples: list[int], gap_s: float, factor: float
) -> None:
    cuts = _cuts(num_samples)
    joined = concatenated(cuts, Concatenation(duration_factor=factor, gap_s=gap_s))
    limit = max(cut.duration for cut in cuts) * factor
    theirs = concat_cuts(cuts, gap=gap_s, max_duration=limit)
    assert [cut_text(cut) for cut in joined] == [cut_text(cut) for cut in theirs]
    assert sorted("+".join(cut.id for cut in joined).split("+")) == sorted(c.id for c in cuts)


def test_joining_joined_ones(tmp_path: Path) -> None:
    cuts = [noise_cut(tmp_path, f"c{n}", n, f"T{n}") for n in (4000, 2000, 3000)]
    (pair,) = concatenated(cuts[:2], Concatenation(duration_factor=2.0, gap_s=0.0))
    (whole,) = concatenated([pair, cuts[2]], Concatenation(duration_factor=2.0, gap_s=0.0))
    assert cut_text(whole) == "T4000 T2000 T3000"
    assert load_samples(whole, AudioCache()).shape == (9000,)


@pytest.mark.parametrize(("factor", "gap"), [(0.9, 1.0), (1.0, -0.1), (float("nan"), 1.0)])
def test_impossible_settings(factor: float, gap: float) -> None:
    with pytest.raises(ConfigError, match="duration_factor is at least 1, gap at least 0"):
        Concatenation(duration_factor=factor, gap_s=gap)
