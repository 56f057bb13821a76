"""The registry of corpora."""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import corpus_names, get_corpus


def test_every_corpus_knows_its_name(tmp_path: Path) -> None:
    assert {name: get_corpus(name, tmp_path).name for name in corpus_names()} == {
        "an4": "an4",
        "digits": "digits",
    }


def test_unknown_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no corpus 'an5' \(hint: choose an4 or digits\)"):
        get_corpus("an5", tmp_path)
