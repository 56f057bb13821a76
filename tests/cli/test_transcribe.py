"""`snowmelt transcribe`: words of whatever can be heard, one line for whatever cannot."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from snowmelt.audio.read import read_audio
from snowmelt.cli.main import main
from snowmelt.runtime.load import load_model
from snowmelt.runtime.recognizer import OnlineRecognizer
from tests.runtime.subtitle_files import read_srt, read_vtt
from tests.runtime.test_formats import read_ctm
from tests.runtime.tiny import TINY_MODELS, make_experiment, noise

_GOOD = ("mono.wav", "stereo.wav", "eight.wav", "cd.flac", "opus.opus", "tiny.wav")


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("exp"), num_epochs=1)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Good sound files of all sorts; bad ones in bad/."""
    folder = tmp_path_factory.mktemp("sounds")
    soundfile.write(folder / "mono.wav", noise(1.5, 1), 16000)
    soundfile.write(folder / "stereo.wav", np.stack([noise(1, 2), noise(1, 3)], 1), 16000)
    soundfile.write(folder / "eight.wav", noise(1.2, 4, rate=8000), 8000)
    soundfile.write(folder / "cd.flac", noise(0.9, 5, rate=44100), 44100)
    opus = noise(0.7, 6, rate=48000)
    soundfile.write(folder / "opus.opus", opus, 48000, format="OGG", subtype="OPUS")
    soundfile.write(folder / "tiny.wav", noise(0.05, 7), 16000)
    bad = folder / "bad"
    bad.mkdir()
    spoilt = noise(1.0)
    spoilt[9000] = np.nan
    soundfile.write(bad / "nan.wav", spoilt, 16000, subtype="FLOAT")
    (bad / "empty.wav").touch()
    soundfile.write(bad / "silent.wav", np.zeros(0, np.float32), 16000)
    flac = io.BytesIO()
    soundfile.write(flac, noise(3.0), 16000, format="FLAC")
    (bad / "truncated.flac").write_bytes(flac.getvalue()[: len(flac.getvalue()) // 2])
    (bad / "text.wav").write_text("this is no sound")
    return folder


@pytest.fixture(scope="module")
def expected(exp_dir, sounds) -> dict[str, str]:
    """Words of each good file, asked for alone through the library."""
    recognizer = OnlineRecognizer(load_model(exp_dir, device="cpu"))
    words = {}
    for name in _GOOD:
        samples, rate = read_audio(sounds / name)
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, samples)
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        words[str(sounds / name)] = recognizer.get_result(stream)
    assert len(set(words.values())) == len(_GOOD)
    return words


def _transcribe(exp_dir: Path, *words: str | Path) -> int:
    return main(["transcribe", "--model", str(exp_dir), "--device", "cpu", *map(str, words)])


@pytest.mark.parametrize("num_streams", [1, 4])
def test_files_of_any_sort_in_their_order(exp_dir, sounds, expected, capsys, num_streams):
    names = [sounds / name for name in _GOOD]
    assert _transcribe(exp_dir, *names, "--num-decode-streams", num_streams) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [expected[str(name)] for name in names]
    assert err == ""


def test_tsv_has_the_path_first(exp_dir, sounds, expected, capsys):
    assert _transcribe(exp_dir, sounds / "eight.wav", "--format", "tsv") == 0
    name = str(sounds / "eight.wav")
    assert capsys.readouterr().out == f"{name}\t{expected[name]}\n"


def test_json_has_words_tokens_and_times(exp_dir, sounds, expected, capsys):
    assert _transcribe(exp_dir, sounds / "mono.wav", sounds / "eight.wav", "--format", "json") == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["path"] for r in results] == [str(sounds / n) for n in ("mono.wav", "eight.wav")]
    for result in results:
        assert result["text"] == expected[result["path"]]
        assert " ".join(word["word"] for word in result["words"]) == result["text"]
        assert len(result["tokens"]) == len(result["timestamps"]) == len(result["token_logprobs"])
        assert result["is_final"] is True


def test_ctm_has_a_line_a_word(exp_dir, sounds, expected, capsys):
    names = [sounds / name for name in ("mono.wav", "missing.wav", "eight.wav")]
    assert _transcribe(exp_dir, *names, "--format", "ctm") == 2
    rows = read_ctm(capsys.readouterr().out)
    for name in (names[0], names[2]):
        words = [row[4] for row in rows if row[0] == str(name)]
        assert " ".join(words) == expected[str(name)]
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)


@pytest.mark.parametrize(("suffix", "read"), [("srt", read_srt), ("vtt", read_vtt)])
def test_subtitles_of_a_file(exp_dir, sounds, expected, capsys, suffix, read):
    assert _transcribe(exp_dir, sounds / "mono.wav", "--format", suffix) == 0
    cues = read(capsys.readouterr().out)
    assert " ".join(cue.text for cue in cues).split() == expected[str(sounds / "mono.wav")].split()
    # What cannot be heard leaves no file, not even a head.
    assert _transcribe(exp_dir, sounds / "missing.wav", "--format", suffix) == 2
    assert capsys.readouterr().out == ""


def test_a_checkpoint_file_is_a_model_too(exp_dir, sounds, capsys):
    assert _transcribe(exp_dir / "epoch-1.pt", sounds / "mono.wav") == 0
    alone = capsys.readouterr().out
    assert _transcribe(exp_dir, sounds / "mono.wav", "--use-averaged-model", "0") == 0
    assert capsys.readouterr().out == alone


@pytest.mark.parametrize("encoder", list(TINY_MODELS))
def test_another_head_of_a_folder_or_file(encoder, sounds, tmp_path, capsys):
    exp_dir = make_experiment(
        tmp_path / "exp", num_epochs=1, model=TINY_MODELS[encoder], head="giga"
    )
    words = []
    for head in ([], ["--head", "giga"]):
        options = ["--use-averaged-model", "0", *head]
        assert _transcribe(exp_dir, sounds / "mono.wav", *options) == 0
        words.append(capsys.readouterr().out)
        assert _transcribe(exp_dir / "epoch-1.pt", sounds / "mono.wav", *head) == 0
        assert capsys.readouterr().out == words[-1]
    assert words[0] != words[1]


def test_a_checkpoint_file_leaves_nothing_to_choose(exp_dir, sounds, capsys):
    assert _transcribe(exp_dir / "epoch-1.pt", sounds / "mono.wav", "--avg", "3") == 2
    err = capsys.readouterr().err
    assert "epoch-1.pt is one file" in err and len(err.splitlines()) == 1


def test_threads_beyond_the_cores_are_not_started(exp_dir, sounds):
    assert _transcribe(exp_dir, sounds / "mono.wav", "--num-threads", 10**12) == 0
    assert torch.get_num_threads() <= (os.cpu_count() or 1)
    torch.set_num_threads(1)


def test_names_that_no_line_can_hold(exp_dir, sounds, expected, tmp_path, capsys):
    names = ["a\tb.wav", "a\nb.wav"]
    for name in names:
        (tmp_path / name).write_bytes((sounds / "mono.wav").read_bytes())
    missing = tmp_path / "c\nd.wav"
    files = [tmp_path / name for name in names]
    assert _transcribe(exp_dir, *files, missing, "", "--format", "tsv") == 2
    out, err = capsys.readouterr()
    words = expected[str(sounds / "mono.wav")]
    assert out == f"{tmp_path}/a\\tb.wav\t{words}\n{tmp_path}/a\\nb.wav\t{words}\n"
    assert len(err.splitlines()) == 2


def test_a_folder_stands_for_its_sound_files(exp_dir, sounds, expected, tmp_path, capsys):
    (tmp_path / "inner").mkdir()
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "b.WAV").write_bytes((sounds / "mono.wav").read_bytes())
    (tmp_path / "inner" / "a.flac").write_bytes((sounds / "cd.flac").read_bytes())
    assert _transcribe(exp_dir, tmp_path, "--format", "tsv") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'b.WAV'}\t{expected[str(sounds / 'mono.wav')]}",
        f"{tmp_path / 'inner' / 'a.flac'}\t{expected[str(sounds / 'cd.flac')]}",
    ]


def test_standard_input(exp_dir, sounds, expected, capsys, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO((sounds / "mono.wav").read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert _transcribe(exp_dir, "-") == 0
    assert capsys.readouterr().out == expected[str(sounds / "mono.wav")] + "\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.wav", "does not exist"),
        ("nan.wav", "not numbers (NaN"),
        ("empty.wav", "empty (0 bytes)"),
        ("silent.wav", "no samples"),
        ("truncated.flac", "truncated"),
        ("text.wav", "no sound file"),
    ],
)
@pytest.mark.parametrize("live", [[], ["--live"]])
def test_a_bad_file_is_one_line_and_the_others_go_on(
    exp_dir, sounds, expected, capsys, name, reason, live
):
    bad, before, after = sounds / "bad" / name, sounds / "mono.wav", sounds / "eight.wav"
    assert _transcribe(exp_dir, before, bad, after, *live) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(f"{bad}: ") and reason in line and "(hint: " in line
    assert line.count(str(bad)) == 1 or name == "missing.wav"
    lines = out.splitlines()
    assert (lines[0], lines[-1]) == (expected[str(before)], expected[str(after)])
    if not live:
        assert len(lines) == 2


def test_only_bad_files(exp_dir, sounds, capsys):
    assert _transcribe(exp_dir, sounds / "bad") == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 5


def test_an_empty_folder_is_said(exp_dir, tmp_path, capsys):
    assert _transcribe(exp_dir, tmp_path) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: the folder holds no sound files (hint: give one that does)\n"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "nothing to transcribe"),
        (["a.wav", "--microphone"], "exclude each other"),
        (["a.wav", "--decode-chunk-len", "20"], "multiple of 16"),
        (["a.wav", "--head", "giga"], "choose main"),
        (["a.wav", "--epoch", "7"], "has no epoch-7.pt"),
        (["a.wav", "--num-threads", "0"], "not a whole number"),
        (["a.wav", "--format", "xml"], "invalid choice"),
        (["a.wav", "--format", "ctm", "--live"], "ctm needs the end of the sound"),
        (["--microphone", "--format", "srt"], "srt needs the end of the sound"),
        (["a.wav", "b.wav", "--format", "vtt"], "there are 2 inputs"),
        (["a.wav", "--method", "fast_beam_search_nbest_oracle"], "chooses by what was really said"),
        (["a.wav", "--iter", "-3"], "not a whole number"),
        (["a.wav", "--blank-penalty", "nan"], "not a finite number"),
        (["a.wav", "--decode-chunk-len", "1000000"], "at most"),
    ],
)
def test_wrong_options_are_one_line(exp_dir, words, reason, capsys):
    assert _transcribe(exp_dir, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and len(err.splitlines()) == 1


def test_a_model_that_is_not_there_is_one_line(tmp_path, sounds, capsys):
    assert _transcribe(tmp_path / "exp", sounds / "mono.wav") == 2
    err = capsys.readouterr().err
    assert "exp does not exist" in err and len(err.splitlines()) == 1


def test_live_words_appear_as_the_sound_is_heard(exp_dir, sounds, expected, monkeypatch):
    written: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return super().write(text)

    out = Recording()
    monkeypatch.setattr("sys.stdout", out)
    assert _transcribe(exp_dir, sounds / "mono.wav", sounds / "eight.wav", "--live") == 0
    words = [expected[str(sounds / name)] for name in ("mono.wav", "eight.wav")]
    assert out.getvalue() == "".join(f"{text}\n" for text in words)
    assert len([text for text in written if text.strip()]) > 4


@pytest.mark.parametrize("line_format", ["tsv", "json"])
def test_live_lines_end_with_the_final_result(exp_dir, sounds, expected, capsys, line_format):
    name = str(sounds / "mono.wav")
    assert _transcribe(exp_dir, name, "--live", "--format", line_format) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    if line_format == "tsv":
        assert lines[-1] == f"{name}\t{expected[name]}"
    else:
        results = [json.loads(line) for line in lines]
        assert [r["is_final"] for r in results[:-2]] == [False] * (len(results) - 2)
        assert results[-1]["is_final"] is True and results[-1]["text"] == expected[name]


def test_other_searches_and_hotwords(exp_dir, sounds, tmp_path, capsys):
    name = sounds / "mono.wav"
    for method in ("beam_search", "modified_beam_search"):
        texts = []
        for live in ([], ["--live"]):
            assert _transcribe(exp_dir, name, "--method", method, *live) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] != "\n"
    phrases = tmp_path / "names.txt"
    phrases.write_text("BI\n")
    options = ["--decoding-method", "modified_beam_search", "--hotwords-file", str(phrases)]
    assert _transcribe(exp_dir, name, *options, "--hotwords-score", "9") == 0
    assert capsys.readouterr().out.count("BI") > texts[0].count("BI")


@pytest.mark.parametrize("options", [["--epoch", "1,2"], ["--method", "greedy_search,beam_search"]])
def test_lists_are_for_scoring(exp_dir, sounds, capsys, options):
    assert _transcribe(exp_dir, sounds / "mono.wav", *options) == 2
    err = capsys.readouterr().err
    assert "this command takes one" in err and len(err.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error(exp_dir, sounds):
    command = [sys.executable, "-m", "snowmelt", "transcribe", "--model", str(exp_dir)]
    command += ["--device", "cpu", str(sounds / "mono.wav"), str(sounds / "missing.wav")]
    process = subprocess.run(
        f"{' '.join(command)} | true",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in process.stderr


def test_help_imports_no_torch():
    code = (
        "import sys; from snowmelt.cli.main import main\n"
        "for command in ('transcribe', 'decode', 'streaming-decode'):\n"
        "    assert main([command, '--help']) == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
