"""`snowmelt prepare`: it knows every corpus, says what it will do and did; errors are one line."""

from pathlib import Path

import pytest

from snowmelt.cli.main import build_parser, main
from snowmelt.data.corpora import corpus_names, manifest_corpus_names
from tests.prepare import corpora


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snowmelt.core.files._fsync", lambda path: None)
    corpora.librispeech(Path("download"))
    corpora.musan(Path("download"))
    return tmp_path


_MINI = ["prepare", "librispeech", "--mini-libri", "1", "--vocab-size", "20", "24", "--nj", "1"]


def test_every_corpus_can_be_named():
    # The names stand in the parser, which must not load the corpora to show its help.
    parser = build_parser(["prepare"])
    for name in (*corpus_names(), *manifest_corpus_names()):
        assert parser.parse_args(["prepare", name]).corpus == name


def test_a_missing_archive_is_one_line(tmp_path, capsys):
    assert main(["prepare", "an4", "--data-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "an4.tar does not exist" in err and len(err.splitlines()) == 1


def test_unknown_corpora_are_refused(capsys):
    assert main(["prepare", "klingon"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_say_do_and_say_again(here, capsys):
    assert main([*_MINI, "--dry-run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "stage 0: sound of train-clean-5: done"
    assert out[3] == "stage 1: manifests of train-clean-5: to do (new)"
    assert out[-1] == "nothing to fetch"
    assert not (here / "data").exists()

    assert main(_MINI) == 0
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("librispeech is prepared in data: train-clean-5: 12 utterances, 0.00")
    assert "lang_bpe_20: 20 pieces of 12 transcripts" in last and "lang_bpe_24" in last
    assert captured.out == ""

    assert main([*_MINI, "--dry-run"]) == 0
    assert "to do" not in capsys.readouterr().out
    assert main([*_MINI, "--dry-run", "--force", "--stage", "5"]) == 0
    assert capsys.readouterr().out.count("made again, because --force says so") == 4

    assert main(["prepare", "status"]) == 0
    out = capsys.readouterr().out
    assert "librispeech:\n  stage 1: manifests of dev-clean-2: done (dev-clean-2: 12 utter" in out
    Path("data/fbank/musan_cuts.jsonl.gz").unlink()
    assert main(["prepare", "status"]) == 0
    assert "features of musan: not done (fbank/musan_cuts.jsonl.gz is missing" in (
        capsys.readouterr().out
    )


def test_parts_between_blanks_or_apart(here, capsys):
    command = ["prepare", "librispeech", "--enable-musan", "0", "--dry-run", "--parts"]
    assert main([*command, "dev-clean-2 train-clean-5"]) == 0
    together = capsys.readouterr().out
    assert main([*command, "dev-clean-2", "train-clean-5"]) == 0
    assert capsys.readouterr().out == together
    assert "dev-clean-2" in together and "MUSAN" not in together


def test_stages_out_of_order_are_one_line(here, capsys):
    assert main([*_MINI, "--stage", "3", "--stop-stage", "3"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("snowmelt: error: stage 3 (features of train-clean-5) needs stage 1")
    assert main([*_MINI, "--stage", "20"]) == 2
    assert "librispeech has no stage from 20 to 5" in capsys.readouterr().err


def test_what_is_to_be_fetched_is_said_before(here, capsys):
    # Nobody listens there.
    command = ["prepare", "librispeech", "--parts", "dev-other", "--base-url", "http://127.0.0.1:9"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "stage 0: sound of dev-other: to do (missing)" in out
    assert "to fetch: 1 files, 0.00 GB" in out and "not known: dev-other.tar.gz" in out


def test_nothing_prepared_yet(here, capsys):
    assert main(["prepare", "status"]) == 0
    assert "nothing is prepared in data" in capsys.readouterr().out


def test_noise_alone(here, capsys):
    assert main(["prepare", "musan", "--on-the-fly-feats", "1"]) == 0
    assert "musan_cuts.jsonl.gz: 4 cuts without features" in capsys.readouterr().err
