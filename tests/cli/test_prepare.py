"""`snowmelt prepare`: it knows every corpus, and what is missing is one line."""

from snowmelt.cli.main import build_parser, main
from snowmelt.data.corpora import corpus_names


def test_every_corpus_can_be_named():
    # The names stand in the parser, which must not load the corpora to show its help.
    parser = build_parser(["prepare"])
    for name in corpus_names():
        assert parser.parse_args(["prepare", name]).corpus == name


def test_a_missing_archive_is_one_line(tmp_path, capsys):
    assert main(["prepare", "an4", "--data-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "an4.tar does not exist" in err and len(err.splitlines()) == 1


def test_unknown_corpora_are_refused(capsys):
    assert main(["prepare", "klingon"]) == 2
    assert "invalid choice" in capsys.readouterr().err
