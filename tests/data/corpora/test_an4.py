"""AN4: official test set untouched, dev speakers out of train."""

import csv
import tarfile
from pathlib import Path

import pytest

from snowmelt.data.corpora.an4 import An4Corpus
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from tests.data.corpora.archives import an4_archive

_DATA = Path(__file__).parents[3] / "data"


def test_splits(tmp_path: Path) -> None:
    an4_archive(tmp_path / "an4.tar")
    corpus = An4Corpus(tmp_path / "an4")
    corpus.prepare()
    speakers = {
        split: {cut.supervisions[0].speaker for cut in corpus.cuts(split)}
        for split in ("train", "dev", "test")
    }
    assert speakers == {"train": {"fash"}, "dev": {"msct"}, "test": {"fcaw"}}
    cut = corpus.cuts("test")[1]
    assert (cut.id, cut_text(cut), cut.num_samples) == ("an1-fcaw-b", "A B C", 801)
    assert load_samples(cut, AudioCache()).shape == (801,)
    assert (tmp_path / "an4" / "LICENSE").read_text() == "text"


def test_the_archive_holds_the_official_split() -> None:
    with tarfile.open(_DATA / "an4.tar") as tar:
        stream = tar.extractfile("an4/transcripts.tsv")
        assert stream is not None
        table = stream.read().decode().splitlines()
    splits = [row["split"] for row in csv.DictReader(table, delimiter="\t")]
    assert (splits.count("train"), splits.count("test")) == (948, 130)


@pytest.mark.slow
def test_the_whole_corpus(tmp_path: Path) -> None:
    corpus = An4Corpus(tmp_path / "an4")
    corpus.prepare(_DATA / "an4.tar")
    assert [len(corpus.cuts(split)) for split in ("train", "dev", "test")] == [857, 91, 130]
