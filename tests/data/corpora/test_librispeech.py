"""Which parts of LibriSpeech are taken."""

from pathlib import Path

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.data.corpora.librispeech import librispeech
from snowmelt.data.corpora.manifests import PartSelection
from tests.data.corpora.manifests import write_part

_PARTS = (
    "train-clean-5",
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean-2",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in _PARTS:
        write_part(tmp_path, "librispeech", part)
    return tmp_path


def _cuts(folder: Path, split: str, selection: PartSelection) -> list[str]:
    return [cut.id.removesuffix("-0") for cut in librispeech(folder, selection).cuts(split)]


def test_all_of_it(folder: Path) -> None:
    selection = PartSelection()
    corpus = librispeech(folder, selection)
    assert corpus.name == "librispeech" and corpus.test_sets == ("test-clean", "test-other")
    assert _cuts(folder, "train", selection) == [
        "train-clean-100",
        "train-clean-360",
        "train-other-500",
    ]
    assert _cuts(folder, "dev", selection) == ["dev-clean", "dev-other"]
    assert _cuts(folder, "test-other", selection) == ["test-other"]
    write_part(folder, "librispeech", "train-all-shuf")
    assert _cuts(folder, "train", selection) == ["train-all-shuf"]


def test_100_hours(folder: Path) -> None:
    write_part(folder, "librispeech", "train-all-shuf")
    selection = PartSelection(full_libri=False)
    assert _cuts(folder, "train", selection) == ["train-clean-100"]
    assert _cuts(folder, "dev", selection) == ["dev-clean", "dev-other"]


def test_mini(folder: Path) -> None:
    selection = PartSelection(full_libri=False, mini_libri=True)
    assert _cuts(folder, "train", selection) == ["train-clean-5"]
    assert _cuts(folder, "dev", selection) == ["dev-clean-2"]
    with pytest.raises(
        ConfigError, match="Cannot set both mini-libri and full-libri flags to True .*full-libri f"
    ):
        librispeech(folder, PartSelection(mini_libri=True))


def test_named_parts_replace_the_usual_ones(folder: Path) -> None:
    write_part(folder, "librispeech", "dev-clean-proxy")
    selection = PartSelection(
        train_parts=("train-clean-360", "train-clean-5"),
        dev_parts=("dev-clean-proxy",),
        test_parts=("dev-other",),
    )
    assert _cuts(folder, "train", selection) == ["train-clean-360", "train-clean-5"]
    assert _cuts(folder, "dev", selection) == ["dev-clean-proxy"]
    assert librispeech(folder, selection).test_sets == ("dev-other",)
    # The others stay as they are.
    selection = PartSelection(full_libri=False, dev_parts=("dev-clean",))
    assert _cuts(folder, "train", selection) == ["train-clean-100"]
