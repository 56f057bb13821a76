"""Composition of digit strings: published list, balance, use of every recording."""

import csv
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.digit_strings import (
    DigitString,
    epoch_strings,
    fixed_strings,
    strings_table,
)

_DATA = Path(__file__).parents[3] / "data"


def _recordings(num_speakers: int, per_speaker: int) -> dict[str, list[str]]:
    return {
        f"speaker{s}": [f"{n % 10}_speaker{s}_{n // 10}" for n in range(per_speaker)]
        for s in range(num_speakers)
    }


def test_the_committed_list_of_test_strings_is_the_one_that_is_composed() -> None:
    names = defaultdict(list)
    with tarfile.open(_DATA / "digits.tar") as tar:
        stream = tar.extractfile("digits/transcripts.tsv")
        assert stream is not None
        table = stream.read().decode().splitlines()
    for row in csv.DictReader(table, delimiter="\t"):
        name = Path(row["file"]).stem
        if int(name.split("_")[2]) < 5:
            names[row["speaker"]].append(name)
    committed = (_DATA / "digits-test-strings.tsv").read_text(encoding="utf-8")
    assert strings_table(fixed_strings(names, "test", 200)) == committed


def test_fixed_strings_are_balanced() -> None:
    recordings = _recordings(num_speakers=6, per_speaker=50)
    strings = fixed_strings(recordings, "test", 200)
    assert Counter(len(s.recordings) for s in strings) == dict.fromkeys(range(3, 8), 40)
    assert set(Counter(s.speaker for s in strings).values()) <= {33, 34}
    heard = Counter(name for s in strings for name in s.recordings)
    assert set(heard) == {name for names in recordings.values() for name in names}
    assert max(heard.values()) <= 4
    assert len({s.id for s in strings}) == 200


def test_splits_differ() -> None:
    recordings = _recordings(num_speakers=2, per_speaker=20)
    test, dev = (fixed_strings(recordings, split, 10) for split in ("test", "dev"))
    assert [s.recordings for s in test] != [s.recordings for s in dev]


@settings(deadline=None, derandomize=True)
@given(
    num_speakers=st.integers(1, 3),
    per_speaker=st.integers(3, 60),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_an_epoch_uses_each_recording_at_most_once_and_nearly_all(
    num_speakers: int, per_speaker: int, seed: int, epoch: int
) -> None:
    recordings = _recordings(num_speakers, per_speaker)
    strings = epoch_strings(recordings, seed, epoch)
    assert strings == epoch_strings(recordings, seed, epoch)
    used = Counter(name for s in strings for name in s.recordings)
    assert max(used.values()) == 1
    assert len(used) >= num_speakers * (per_speaker - 2)
    for string in strings:
        _check(string)
        assert set(string.recordings) <= set(recordings[string.speaker])
    assert len({s.id for s in strings}) == len(strings)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_epochs_and_seeds_give_new_strings(seed: int, epoch: int) -> None:
    recordings = _recordings(num_speakers=1, per_speaker=30)
    first = {s.recordings for s in epoch_strings(recordings, 0, 0)}
    assert first.isdisjoint(s.recordings for s in epoch_strings(recordings, seed, epoch))


def test_order_of_names_does_not_matter() -> None:
    recordings = _recordings(num_speakers=2, per_speaker=20)
    backwards = {s: names[::-1] for s, names in reversed(recordings.items())}
    assert epoch_strings(recordings, 0, 0) == epoch_strings(backwards, 0, 0)
    assert fixed_strings(recordings, "dev", 9) == fixed_strings(backwards, "dev", 9)


def _check(string: DigitString) -> None:
    assert 3 <= len(string.recordings) <= 7
    assert len(string.pauses) == len(string.recordings) + 1
    assert all(1600 <= pause <= 6400 for pause in string.pauses)


@pytest.mark.parametrize("names", [{}, _recordings(2, 6)])
def test_too_few_recordings_for_the_longest_string(names: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match="the test split needs 7 recordings of each speaker"):
        fixed_strings(names, "test", 10)
