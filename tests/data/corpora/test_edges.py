"""Utterances cut at their first and last sound: what is in them."""

from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import open_corpus
from snowmelt.data.corpora.edges import EdgeCorpus
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from tests.data.corpora.archives import digits_archive


def test_a_corpus_has_two_test_sets_for_each_of_its_own(tmp_path):
    digits_archive(tmp_path / "digits.tar")
    open_corpus("digits", tmp_path, tmp_path).prepare()
    corpus = open_corpus("digits-edges", tmp_path, tmp_path)
    assert corpus.name == "digits-edges"
    assert corpus.test_sets == ("digits-test-cut", "digits-test-silence")
    cut, silent = (list(corpus.cuts(name)) for name in corpus.test_sets)
    originals = list(open_corpus("digits", tmp_path, tmp_path).cuts("test"))
    assert len(corpus.cuts("test")) == 2 * len(originals) == len(cut) + len(silent)
    assert len({c.id for c in corpus.cuts("test")}) == 2 * len(originals)
    cache = AudioCache()
    for original, a, b in list(zip(originals, cut, silent, strict=True))[:9]:
        assert cut_text(a) == cut_text(b) == cut_text(original)
        short, long = load_samples(a, cache), load_samples(b, cache)
        assert len(short) < original.num_samples - 3200 + 1
        np.testing.assert_array_equal(long[8000:-8000], short)
        assert not long[:8000].any() and not long[-8000:].any()
        words, later = cut_words(a), cut_words(b)
        assert words[0].start == 0.0
        assert words[-1].start + words[-1].duration == pytest.approx(a.duration)
        assert [w.start for w in later] == pytest.approx([w.start + 0.5 for w in words])
        assert {w.symbol for w in words} == set(cut_text(a).split())
    assert next(c.id for c in corpus.cuts("dev")) == "digits-dev-000-cut"


def test_mistakes_are_named(tmp_path):
    corpus = EdgeCorpus("own", ("test-x",), lambda split: CutSet())
    with pytest.raises(DataError, match="no split 'train'") as error:
        corpus.cuts("train")
    assert "own-test-x-cut" in str(error.value)
    with pytest.raises(DataError, match="no corpus 'nowhere'"):
        open_corpus("nowhere-edges", Path(tmp_path), Path(tmp_path))
