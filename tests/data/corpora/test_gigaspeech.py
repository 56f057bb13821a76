"""Which subsets of GigaSpeech are taken."""

from pathlib import Path

from snowmelt.data.corpora.gigaspeech import gigaspeech
from snowmelt.data.corpora.manifests import PartSelection
from tests.data.corpora.manifests import write_part


def _cuts(folder: Path, split: str, selection: PartSelection) -> list[str]:
    return [cut.id for cut in gigaspeech(folder, selection).cuts(split)]


def test_subsets(tmp_path: Path) -> None:
    for number in (1, 2):
        file = f"gigaspeech_XL_split_2000/gigaspeech_cuts_XL.{number:08d}.jsonl.gz"
        write_part(tmp_path, "gigaspeech", f"XL{number}", file=file)
    for subset in ("S", "DEV", "TEST", "XS"):
        write_part(tmp_path, "gigaspeech", subset)
    full, small = PartSelection(), PartSelection(full_libri=False)
    assert _cuts(tmp_path, "train", full) == ["XL1-0", "XL2-0"]
    assert _cuts(tmp_path, "train", small) == ["S-0"]
    assert _cuts(tmp_path, "dev", full) == ["DEV-0"]
    assert gigaspeech(tmp_path, full).test_sets == ("TEST",)
    assert _cuts(tmp_path, "TEST", full) == ["TEST-0"]
    named = PartSelection(train_parts=("XS",), dev_parts=("S",), test_parts=("DEV", "TEST"))
    assert _cuts(tmp_path, "train", named) == ["XS-0"]
    assert _cuts(tmp_path, "dev", named) == ["S-0"]
    assert gigaspeech(tmp_path, named).test_sets == ("DEV", "TEST")


def test_mini_librispeech_beside_it_changes_nothing(tmp_path: Path) -> None:
    write_part(tmp_path, "gigaspeech", "S")
    mini = PartSelection(full_libri=False, mini_libri=True)
    assert _cuts(tmp_path, "train", mini) == ["S-0"]
