"""`snowmelt prepare own` and `snowmelt prepare audit`: from a folder of sounds to a verdict."""

from pathlib import Path

import pytest

from snowmelt.cli.main import main
from snowmelt.data.corpora import open_corpus
from snowmelt.text.tokenizer import load_tokenizer, prepared_vocabulary
from tests.data.audit.planted import corpus


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A table of healthy recordings beside them."""
    rows = [
        f"{Path(cut.recording.sources[0].source).name}\t{cut.supervisions[0].text}\t"
        f"{cut.supervisions[0].speaker}\t{split}\n"
        for split, cuts in corpus(tmp_path / "sounds").items()
        for cut in cuts
    ]
    path = tmp_path / "sounds" / "list.tsv"
    path.write_text("path\ttext\tspeaker\tsplit\n" + "".join(rows))
    return path


def _prepare(listed: Path, *words: str) -> int:
    data = ["--data-dir", str(listed.parent.parent / "data")]
    return main(["prepare", "own", "--transcripts", str(listed), "--nj", "1", *data, *words])


def test_a_folder_of_sounds_becomes_a_corpus_that_passes(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = listed.parent.parent / "data"
    assert _prepare(listed, "--name", "mine") == 0
    out, err = capsys.readouterr()
    assert out == "" and "mine is prepared in" in err and "train 40" in err
    assert len(open_corpus("mine", data, data).cuts("train")) == 40

    words = ["prepare", "audit", "mine", "--data-dir", str(data), "--nj", "1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "Nothing was found: training may start." in out
    assert (data / "audit" / "mine" / "report.html").exists()


def test_a_vocabulary_on_request(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = listed.parent.parent / "data"
    words = ["--tokenizer", "bpe", "--vocab-size", "280", "--byte-fallback"]
    assert _prepare(listed, *words) == 0
    assert "vocabulary: 280 bpe" in capsys.readouterr().err
    tokenizer = load_tokenizer(prepared_vocabulary(data, "own"))
    assert tokenizer.decode(tokenizer.encode("ONE Ж")) == "ONE Ж"
    # What is not asked for again stays.
    assert _prepare(listed) == 0
    assert prepared_vocabulary(data, "own").exists()


def test_a_corpus_in_shards(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = listed.parent.parent / "data"
    assert _prepare(listed) == 0
    words = ["prepare", "shar", "own", "--data-dir", str(data), "--nj", "1", "--shard-size", "30"]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert "own-shar is prepared in" in err and "train: 40 utterances, 0.0" in err
    assert main([*words, "--name", "feats", "--content", "features", "--splits", "dev"]) == 0
    assert main(["prepare", "audit", "own-shar", "--data-dir", str(data), "--nj", "1"]) == 0
    assert "Nothing was found" in capsys.readouterr().out
    # A shard that is gone is a defect of all its utterances.
    (data / "own-shar" / "train" / "recording.000001.tar").unlink()
    assert main(["prepare", "audit", "own-shar", "--data-dir", str(data), "--nj", "1"]) == 2
    assert "unreadable: 10, training must not" in capsys.readouterr().out


def test_an_audit_that_forbids_training(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = listed.parent.parent / "data"
    assert _prepare(listed) == 0
    (listed.parent / "train-03.wav").unlink()
    words = ["prepare", "audit", "own", "--data-dir", str(data), "--nj", "1"]
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert "missing: 1, training must not start with it" in out
    assert "training must not start: 1 findings, the first: train-03" in err.splitlines()[-1]
    # What is left out is another corpus, without the defect.
    assert main([*words, "--ignore", "missing"]) == 0
    assert main([*words, "--splits", "dev", "test"]) == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["audit", "nobody"], "no corpus 'nobody'"),
        (["audit", "own", "--ignore", "ugly"], "no defect 'ugly' (hint: known: missing"),
        (["audit", "own", "--min-level-db", "low"], "not a finite number"),
        (["own", "--transcripts", "no.tsv"], "no.tsv does not exist"),
        (["own"], "one of the arguments --transcripts"),
        (["own", "--recordings", "r.jsonl.gz"], "--recordings and --supervisions belong together"),
        (["own", "--transcripts", "x.tsv", "--name", "../x"], "no name of a corpus"),
        (["own", "--transcripts", "x.tsv", "--dev-share", "1"], "is no share"),
        (["shar", "digits"], "composes its training utterances anew"),
        (["shar", "own", "--name", "an4"], "'an4' is no name of a new corpus"),
        (["own", "--transcripts", "x.tsv", "--dask-address", "a:1"], "add --executor dask"),
        (
            ["audit", "own", "--executor", "dask", "--dask-address", "a:1", "--nj", "2"],
            "--nj has no meaning with --dask-address",
        ),
        (["own", "--transcripts", "x.tsv", "--byte-fallback"], "(hint: add --tokenizer bpe)"),
        (
            ["own", "--transcripts", "x.tsv", "--tokenizer", "chars", "--vocab-size", "9"],
            "--vocab-size is an option of BPE vocabularies",
        ),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(["prepare", *words, "--data-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err.splitlines()[-1]
