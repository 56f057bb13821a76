"""The digits corpus: splits, composed sound, exact word times, the same strings for everyone."""

from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.digits import DigitsCorpus
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from tests.data.corpora.archives import DIGITS, SPEAKERS, digits_archive, wav_bytes, write_tar

_DATA = Path(__file__).parents[3] / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data")
    digits_archive(top / "digits.tar")
    DigitsCorpus(top / "digits").prepare()
    return top / "digits"


def _indices(recordings: str) -> set[int]:
    return {int(name.split("_")[2]) for name in recordings.split(" ")}


def test_splits(folder: Path) -> None:
    corpus = DigitsCorpus(folder)
    assert len(corpus.cuts("test")) == 200
    assert len(corpus.cuts("dev")) == 150
    train = corpus.cuts("train", epoch=3)
    # 8 recordings of each speaker, at most 2 of them resting.
    assert sum(len(cut.supervisions) for cut in train) >= 2 * 6
    names = {track.cut.id for cut in train for track in cut.tracks[1:]}
    assert _indices(" ".join(names)) <= {10, 11, 12, 13}
    for split, expected in (("test", range(5)), ("dev", range(5, 10))):
        rows = (folder / f"digits-{split}-strings.tsv").read_text().splitlines()[1:]
        assert set().union(*(_indices(row.split("\t")[2]) for row in rows)) == set(expected)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_words_are_where_the_cut_says_and_silence_is_between(folder: Path, split: str) -> None:
    cache = AudioCache()
    for cut in list(DigitsCorpus(folder).cuts(split))[:5]:
        samples = load_samples(cut, cache)
        assert samples.shape == (cut.num_samples,)
        words = cut_words(cut)
        assert 3 <= len(words) <= 7
        assert cut_text(cut) == " ".join(word.symbol for word in words)
        assert set(cut_text(cut).split()) <= set(DIGITS.values())
        assert {s.speaker for s in cut.supervisions} <= set(SPEAKERS)
        edges = [0.0]
        for word in words:
            edges += [word.start, word.start + word.duration]
            start = round(word.start * 16000)
            stop = start + round(word.duration * 16000)
            assert 800 <= stop - start <= 2 * 530
            assert np.sqrt(np.mean(samples[start:stop] ** 2)) > 0.1
            samples = samples.copy()
            samples[start:stop] = 0
        assert not samples.any()
        edges.append(cut.duration)
        pauses = np.diff(edges)[0::2]
        assert (pauses > 0.0999).all() and (pauses < 0.4001).all()


def test_train_is_a_function_of_seed_and_epoch(folder: Path) -> None:
    first = DigitsCorpus(folder, seed=1).cuts("train", 1)
    again = DigitsCorpus(folder, seed=1)
    again.cuts("train", 0)
    assert first.to_eager().data == again.cuts("train", 1).to_eager().data
    other = DigitsCorpus(folder, seed=2).cuts("train", 1)
    assert [cut_words(c) for c in first] != [cut_words(c) for c in other]


def test_the_folder_can_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(folder)
    cut = DigitsCorpus(moved).cuts("test")[0]
    assert cut.recording.sources[0].source.startswith(str(moved))
    assert load_samples(cut, AudioCache()).shape == (cut.num_samples,)


def test_not_prepared(tmp_path: Path) -> None:
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"run snowmelt prepare .* --data-dir"):
            DigitsCorpus(tmp_path).cuts(split)


def test_an_archive_with_other_names_is_refused(tmp_path: Path) -> None:
    table = b"file\tspeaker\ttext\none.wav\tann\tONE\n"
    members = {"digits/transcripts.tsv": table, "digits/one.wav": wav_bytes(400, 8000, 1)}
    archive = write_tar(tmp_path / "digits.tar", members)
    with pytest.raises(DataError, match="'one' is not called <digit>_<speaker>_<number>"):
        DigitsCorpus(tmp_path / "digits").prepare(archive)
    assert not (tmp_path / "digits").exists()


@pytest.mark.slow
def test_the_whole_corpus(tmp_path: Path) -> None:
    corpus = DigitsCorpus(tmp_path / "digits")
    corpus.prepare(_DATA / "digits.tar")
    made = (tmp_path / "digits" / "digits-test-strings.tsv").read_bytes()
    assert made == (_DATA / "digits-test-strings.tsv").read_bytes()
    assert len(list((tmp_path / "digits" / "recordings").iterdir())) == 2400
    assert sum(len(cut_words(cut)) for cut in corpus.cuts("test")) == 1000
    assert sum(len(cut_words(cut)) for cut in corpus.cuts("train")) >= 2400 - 12
