"""The registry of corpora."""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import (
    PartSelection,
    corpus_names,
    get_corpus,
    manifest_corpus_names,
    open_corpus,
)
from tests.data.corpora.archives import an4_archive
from tests.data.corpora.manifests import write_part


def test_every_corpus_knows_its_name(tmp_path: Path) -> None:
    assert {name: get_corpus(name, tmp_path).name for name in corpus_names()} == {
        "an4": "an4",
        "digits": "digits",
    }


def test_unknown_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no corpus 'an5' \(hint: choose an4 or digits[;)]"):
        get_corpus("an5", tmp_path)


def test_any_corpus_can_be_opened(tmp_path: Path) -> None:
    names = [*corpus_names(), *manifest_corpus_names()]
    assert names == ["an4", "digits", "librispeech", "gigaspeech"]
    corpora = [open_corpus(name, tmp_path, tmp_path) for name in names]
    assert [corpus.name for corpus in corpora] == names
    assert [corpus.varies_with_epoch for corpus in corpora] == [False, True, False, False]
    assert [corpus.test_sets for corpus in corpora] == [
        ("test",),
        ("test",),
        ("test-clean", "test-other"),
        ("TEST",),
    ]
    with pytest.raises(DataError, match="choose an4 or digits or librispeech or gigaspeech"):
        open_corpus("an5", tmp_path, tmp_path)


def test_archives_and_manifests_have_folders_of_their_own(tmp_path: Path) -> None:
    data_dir, manifest_dir = tmp_path / "data", tmp_path / "fbank"
    data_dir.mkdir()
    an4_archive(data_dir / "an4.tar")
    get_corpus("an4", data_dir / "an4").prepare()
    assert len(open_corpus("an4", data_dir, manifest_dir).cuts("test")) == 2
    write_part(manifest_dir, "librispeech", "mine", 3)
    selection = PartSelection(train_parts=("mine",))
    corpus = open_corpus("librispeech", data_dir, manifest_dir, selection=selection)
    assert len(corpus.cuts("train")) == 3


@pytest.mark.parametrize("name", ["an4", "digits"])
def test_unknown_splits(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"no split 'valid' \(hint: choose train, dev, test\)"):
        get_corpus(name, tmp_path).cuts("valid")
