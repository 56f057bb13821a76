"""Which cuts are dropped before training, and what is said about it."""

from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut

from snowmelt.data.corpora.wav import whole_file_cut
from snowmelt.data.cuts import with_speed_copies
from snowmelt.data.filter import filter_cuts
from tests.data.fakes import LetterTokenizer, noise_cut


def _cut(name: str, num_samples: int, text: str) -> MonoCut:
    return whole_file_cut(name, f"{name}.wav", num_samples, text, "someone")


def _kept(cut: MonoCut) -> bool:
    kept, _ = filter_cuts(CutSet.from_cuts([cut]), LetterTokenizer())
    return len(kept) == 1


@pytest.mark.parametrize(
    ("num_samples", "kept"), [(15999, False), (16000, True), (320000, True), (320001, False)]
)
def test_durations_are_inclusive(num_samples: int, kept: bool) -> None:
    assert _kept(_cut("a", num_samples, "A")) is kept


def test_as_many_tokens_as_encoder_frames_are_kept() -> None:
    # 100 feature frames: ((100 - 7) // 2 + 1) // 2 = 23.
    assert _kept(_cut("a", 16000, "A" * 23))
    assert not _kept(_cut("a", 16000, "A" * 24))


def test_lengths_are_counted_after_speed_perturbation(tmp_path: Path) -> None:
    cuts = with_speed_copies(CutSet.from_cuts([noise_cut(tmp_path, "a", 17600, "A" * 23)]))
    kept, dropped = filter_cuts(cuts, LetterTokenizer())
    assert [cut.id for cut in kept] == ["a", "a_sp0.9", "a_sp1.1"]
    kept, dropped = filter_cuts(cuts, LetterTokenizer(), min_duration=1.05)
    assert dropped.reasons == (("a_sp1.1", "shorter than 1.05 s"),)


def test_report() -> None:
    cuts = CutSet.from_cuts(
        [_cut("short", 1000, "A"), _cut("empty", 20000, " "), _cut("good", 20000, "A")]
        + [_cut(f"dense{n}", 20000, "A" * 99) for n in range(2)]
    )
    kept, dropped = filter_cuts(cuts, LetterTokenizer())
    assert [cut.id for cut in kept] == ["good"]
    assert str(dropped) == (
        "dropped 4 of 5 cuts (80 %): 1 shorter than 1 s, 1 without a transcript, "
        "2 with more tokens than encoder frames"
    )
    _, nothing = filter_cuts(kept, LetterTokenizer())
    assert str(nothing) == "kept all 1 cuts"
    assert nothing.counts == {}


def test_shortest_cuts_have_no_encoder_frames() -> None:
    cuts = CutSet.from_cuts([_cut(f"c{n}", n, "A") for n in (1, 80, 160, 1200, 1360, 1520)])
    kept, _ = filter_cuts(cuts, LetterTokenizer(), min_duration=0.0)
    assert [cut.id for cut in kept] == ["c1360", "c1520"]  # 9 feature frames and more
