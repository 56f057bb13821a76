"""What lists name, and what is wrong with them."""

from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.prepare.transcripts import Transcribed, read_kaldi, read_transcripts


def _list(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _plain(utterances: list[Transcribed]) -> list[tuple[object, ...]]:
    """Without the places."""
    return [(*u[:2], *u[3:]) for u in utterances]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "a.wav\tHELLO\tann\t1\t2.5\nb/b.flac\tGOOD DAY\n"),
        (
            "a.tsv",
            "path\ttext\tspeaker\tstart\tend\na.wav\tHELLO\tann\t1\t2.5\nb/b.flac\tGOOD DAY\n",
        ),
        ("a.csv", 'text,PATH,spk,offset,duration\nHELLO,a.wav,ann,1,1.5\n"GOOD DAY",b/b.flac,,,\n'),
        (
            "a.jsonl",
            '{"audio_filepath": "a.wav", "text": "HELLO", "speaker": "ann", "offset": 1, '
            '"duration": 1.5}\n\n{"path": "b/b.flac", "transcript": "GOOD DAY"}\n',
        ),
        ("a.txt", "\ufeffa.wav\tHELLO\tann\t1\t2.5\r\nb/b.flac\tGOOD DAY\r\n"),
    ],
)
def test_the_same_list_in_many_forms(tmp_path: Path, name: str, text: str) -> None:
    utterances = read_transcripts(_list(tmp_path, name, text))
    assert _plain(utterances) == [
        ("a.wav", "HELLO", "ann", 1.0, 2.5, "", ""),
        ("b/b.flac", "GOOD DAY", "", 0.0, None, "", ""),
    ]


def test_splits_and_ids(tmp_path: Path) -> None:
    text = "id\tpath\ttext\tsplit\tmood\nu1\ta.wav\tA\ttraining\tgood\nu2\tb.wav\tB\tValid\tbad\n"
    utterances = read_transcripts(_list(tmp_path, "a.tsv", text))
    assert [(u.utterance_id, u.split) for u in utterances] == [("u1", "train"), ("u2", "dev")]


def test_a_csv_cell_may_hold_commas_and_quotes(tmp_path: Path) -> None:
    text = 'path,text\na.wav,"""YES"", HE SAID"\n'
    assert read_transcripts(_list(tmp_path, "a.csv", text))[0].text == '"YES", HE SAID'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", "names no utterance"),
        ("a.doc", "a\tb", "ends in .tsv"),
        ("a.tsv", "a.wav\n", "line 1 has no text"),
        ("a.tsv", "\tHELLO\n", "line 1 names no sound file"),
        ("a.tsv", "a.wav\tA\tann\tsoon\n", "line 1: start 'soon' is no number"),
        ("a.tsv", "a.wav\tA\tann\t3\t2\n", "line 1 lasts from 3 to 2 s"),
        ("a.tsv", "a.wav\tA\tann\t1\t2\tx\n", "line 1 has 6 columns"),
        ("a.tsv", "path\ttext\tsplit\na.wav\tA\teval\n", "line 2: there is no split 'eval'"),
        ("a.jsonl", '{"path": "a.wav"}\n', "line 1 has no text"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", "{\n", "line 1 is no JSON"),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_transcripts(_list(tmp_path, name, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"a.wav\t\xff\xfe\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_transcripts(tmp_path / "a.tsv")
    with pytest.raises(DataError, match="does not exist"):
        read_transcripts(tmp_path / "b.tsv")


def test_kaldi_whole_recordings(tmp_path: Path) -> None:
    _list(tmp_path, "wav.scp", "r1 sounds/r1.wav\nr2\tsounds/r 2.wav\n")
    _list(tmp_path, "text", "r1 HELLO THERE\nr2 \n")
    _list(tmp_path, "utt2spk", "r1 ann\nr2 bob\n")
    assert _plain(read_kaldi(tmp_path)) == [
        ("sounds/r1.wav", "HELLO THERE", "ann", 0.0, None, "", "r1"),
        ("sounds/r 2.wav", "", "bob", 0.0, None, "", "r2"),
    ]


def test_kaldi_segments(tmp_path: Path) -> None:
    _list(tmp_path, "wav.scp", "r1 r1.wav\n")
    _list(tmp_path, "segments", "u1 r1 0.5 2.0\nu2 r1 2.0 -1\n")
    _list(tmp_path, "text", "u1 HELLO\nu2 BYE\n")
    assert [(u.start_s, u.end_s) for u in read_kaldi(tmp_path)] == [(0.5, 2.0), (2.0, None)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"wav\.scp does not exist"),
        ({"wav.scp": "r1 sox r1.sph -t wav - |\n", "text": "r1 A\n"}, "command, which is not run"),
        ({"wav.scp": "r1\n", "text": "r1 A\n"}, "line 1 has one field"),
        ({"wav.scp": "r1 a.wav\n", "text": "r2 A\n"}, "r2 has no sound"),
        (
            {"wav.scp": "r1 a.wav\n", "text": "u1 A\n", "segments": "u1 r2 0 1\n"},
            "recording r2 is not in wav.scp",
        ),
        (
            {"wav.scp": "r1 a.wav\n", "text": "u1 A\n", "segments": "u1 r1 0\n"},
            "needs a recording, a start and an end",
        ),
    ],
)
def test_kaldi_mistakes(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        _list(tmp_path, name, text)
    with pytest.raises(DataError, match=message):
        read_kaldi(tmp_path)
