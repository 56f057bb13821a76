"""From a lexicon and a text, or a published n-gram model, to LG."""

import gzip
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.places import Places
from snowmelt.prepare.plans import librispeech_steps
from snowmelt.text.graph import DecodingGraph
from snowmelt.text.tokenizer import load_tokenizer
from tests.prepare import corpora

_PARTS = ("train-clean-5", "dev-clean-2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    corpora.librispeech(Path("download"), _PARTS)
    return tmp_path


def _pipeline() -> Pipeline:
    places = Places(Path("data"), Path("download"))
    steps = librispeech_steps(places, _PARTS, vocab_sizes=(20,), with_noise=False)
    return Pipeline("librispeech", places.data, steps)


def _write_lm(*, arpa: bool) -> list[str]:
    """A lexicon and a text of the training words; returns the sentences."""
    texts = [
        line.partition(" ")[2]
        for path in sorted(Path("download/LibriSpeech/train-clean-5").rglob("*.trans.txt"))
        for line in path.read_text().splitlines()
    ]
    words = sorted({word for text in texts for word in text.split()})
    folder = Path("download/lm")
    folder.mkdir()
    lexicon = "".join(f"{word} {' '.join(word)}\n" for word in words[1:])
    (folder / "librispeech-lexicon.txt").write_text(lexicon)
    (folder / "librispeech-vocab.txt").write_text("\n".join(words) + "\n")
    if arpa:
        log_prob = "-1.5"
        lines = [f"{log_prob}\t{word}\n" for word in ("<s>", "</s>", *words)]
        header = f"\\data\\\nngram 1={len(lines)}\n\n\\1-grams:\n"
        content = gzip.compress((header + "".join(lines) + "\n\\end\\\n").encode(), mtime=0)
        for name in ("3-gram.pruned.1e-7.arpa.gz", "4-gram.arpa.gz"):
            (folder / name).write_bytes(content)
    else:
        (folder / "librispeech-lm-norm.txt").write_text("\n".join(texts * 3) + "\n")
    return texts


@pytest.mark.parametrize("arpa", [True, False])
def test_all_stages(here: Path, arpa: bool) -> None:
    texts = _write_lm(arpa=arpa)
    made = _pipeline().run(0, 14)
    lang = Path("data/lang_bpe_20")
    words = (lang / "words.txt").read_text().splitlines()
    assert words == Path("data/lang_phone/words.txt").read_text().splitlines()
    # A word without phones is a word nevertheless.
    symbols = {line.split()[0] for line in words}
    assert {word for text in texts for word in text.split()} <= symbols
    assert (lang / "lexicon_disambig.txt").exists()
    assert "#0 20" in (lang / "tokens.txt").read_text()
    assert load_tokenizer(lang).vocab_size == 20
    for order in (3, 4):
        assert Path(f"data/lm/G_{order}_gram.fst.txt").stat().st_size > 0
    graph = DecodingGraph.load(lang / "LG.npz")
    assert graph.num_arcs > 0
    for order in (2, 3, 4, 5):
        assert (lang / f"{order}gram.arpa").exists() and (lang / f"{order}gram.fst.txt").exists()
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.*")}
    assert _pipeline().run(0, 14) == made
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.*")} == before
    # tokens.txt grew after stage 5: that is no reason to train the vocabulary again.
    content = corpora.content(Path("data"))
    _pipeline().run(5, 14, force=True)
    assert corpora.content(Path("data")) == content


def test_what_is_missing_is_named(here: Path) -> None:
    with pytest.raises(DataError, match=r"stage 10 .* needs stage 5 .*--stage 5"):
        _write_lm(arpa=False)
        _pipeline().run(6, 10)
    _pipeline().run(0, 5)
    (here / "download/lm/librispeech-lm-norm.txt").unlink()
    with pytest.raises(DataError, match=r"neither .*3-gram\.pruned.* nor a text .*--stage -1"):
        _pipeline().run(6, 14)
    (here / "download/lm/librispeech-lm-norm.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"the text .* is damaged"):
        _pipeline().run(6, 14)
    (here / "download/lm/librispeech-lexicon.txt").unlink()
    with pytest.raises(DataError, match=r"the phone lexicon .* does not exist .*--stage -1"):
        _pipeline().run(6, 6, force=True)
