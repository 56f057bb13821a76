"""From a corpus to result files."""

import logging

import pytest

from snowmelt.core.errors import DataError
from snowmelt.data import corpora
from snowmelt.evaluate.report import DecodingSettings
from snowmelt.evaluate.score import score_splits
from snowmelt.runtime.load import WeightsChoice
from tests.evaluate.corpus import NoiseCorpus, hypothesis
from tests.runtime.tiny import make_experiment


@pytest.fixture
def exp_dir(tmp_path, monkeypatch):
    monkeypatch.setitem(corpora._ARCHIVE_CORPORA, "noise", lambda folder, seed: NoiseCorpus(folder))
    yield make_experiment(tmp_path / "exp", num_epochs=0, corpus="noise")
    # setup_logging's file lies in tmp_path: let go of it.
    for handler in logging.getLogger().handlers[:]:
        if hasattr(handler, "_snowmelt_handler"):
            logging.getLogger().removeHandler(handler)
            handler.close()


def _score(exp_dir, tmp_path, splits, corpus="noise", is_streaming=False):
    settings = DecodingSettings(WeightsChoice(epoch=3, avg=2), 32, 2, is_streaming=is_streaming)
    return [
        str(score)
        for score in score_splits(
            lambda utterances: [hypothesis(u, "A") for u in utterances],
            settings,
            weights="mean of epoch-2.pt, epoch-3.pt",
            exp_dir=exp_dir,
            corpus=corpus,
            data_dir=tmp_path / "data",
            manifest_dir=tmp_path / "manifests",
            splits=splits,
            about={"weights_sha256": "12ab"},
        )
    ]


def test_each_split_has_its_files_and_line(exp_dir, tmp_path):
    lines = _score(exp_dir, tmp_path, ["test", "dev"])
    assert lines == [
        "[noise-test-greedy_search] %WER 50.00% [3 / 6, 0 ins, 3 del, 0 sub ]",
        "[noise-dev-greedy_search] %WER 50.00% [3 / 6, 0 ins, 3 del, 0 sub ]",
    ]
    names = [path.name for path in (exp_dir / "greedy_search").iterdir()]
    assert sum(name.startswith("recogs-noise-test-epoch-3-avg-2-") for name in names) == 1
    for kind in ("ctm", "results"):
        assert sum(name.startswith(f"{kind}-noise-dev-epoch-3-avg-2-") for name in names) == 1
    (log,) = (exp_dir / "greedy_search").glob("log-decode-epoch-3-avg-2-*")
    assert "Weights: mean of epoch-2.pt, epoch-3.pt" in log.read_text()
    assert "noise-dev: 3 utterances, 2.7 s of sound" in log.read_text()


def test_every_test_set_of_a_corpus_is_scored(exp_dir, tmp_path, monkeypatch):
    folders = []

    def two_sets(folder, selection):
        folders.append(folder)
        return NoiseCorpus(folder, "books", ("test-clean", "TEST"))

    monkeypatch.setitem(corpora._MANIFEST_CORPORA, "books", two_sets)
    lines = _score(exp_dir, tmp_path, ["dev", "test"], corpus="books")
    assert [line.split("]")[0] for line in lines] == [
        "[books-dev-greedy_search",
        "[test-clean-greedy_search",
        "[books-TEST-greedy_search",
    ]
    assert folders == [tmp_path / "manifests"]


def test_an_empty_split_or_unknown_corpus_stops_before_any_work(exp_dir, tmp_path):
    with pytest.raises(DataError, match="train split of noise holds no utterance"):
        _score(exp_dir, tmp_path, ["test", "train"])
    with pytest.raises(DataError, match="no corpus 'nowhere'"):
        _score(exp_dir, tmp_path, ["test"], corpus="nowhere")
    assert not (exp_dir / "greedy_search").exists()
