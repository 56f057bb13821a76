"""`snowmelt compare`: figures for people and for programs, one line for mistakes."""

import json

import pytest

from snowmelt.cli.main import main
from snowmelt.text.wer import save_results


@pytest.fixture
def files(tmp_path):
    """Recogs files of two results: B has half of A's errors."""
    said = [f"W{n}" for n in range(20)]
    for name, stride in (("a", 5), ("b", 10)):
        rows = [
            (f"u{u}", said, [f"X{w}" if (u + n) % stride == 0 else w for n, w in enumerate(said)])
            for u in range(12)
        ]
        save_results({"greedy_search": rows}, name, "x", tmp_path)
    return [str(tmp_path / f"recogs-{name}-x.txt") for name in ("a", "b")]


def test_figures_for_people(files, capsys):
    assert main(["compare", *files]) == 0
    text = capsys.readouterr().out
    assert f"A  {files[0]}\nB  {files[1]}\n" in text
    for part in ("20.00 %", "10.00 %", "95 % by utterance (12)", "48 / 240 (0 ins, 0 del, 48 sub)"):
        assert part in text
    assert "B - A: -10.00 points" in text and "p = 0.0002" in text
    assert "matched pairs, 48 segments: z = " in text and "p = below 0.0001" in text
    assert text.count("\n  ref  W0 W1") == 10


def test_figures_for_programs(files, capsys):
    assert main(["compare", "--json", *files]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"]["wer"], found["b"]["wer"], found["difference"]) == (20.0, 10.0, -10.0)
    assert found["b"]["substitutions"] == 24 and found["num_better_b"] == 12
    assert found["bootstrap_by_utterance"]["difference"] == [-10.0, -10.0]
    assert found["bootstrap_by_speaker"] is None
    assert found["matched_pairs"]["num_segments"] == 48
    assert len(found["utterances"]) == 10 and found["utterances"][0]["errors_a"] == 4


def test_a_result_is_as_good_as_itself(files, capsys):
    assert main(["compare", files[0], files[0]]) == 0
    text = capsys.readouterr().out
    assert "B - A: +0.00 points" in text and "p = 1.0000" in text and "differ most" not in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["{a}"], "required: RESULT_B"),
        (["{a}", "nowhere.txt"], "nowhere.txt does not exist"),
        (["{a}", "{other}"], "no recogs file"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, words, reason, capsys):
    other = tmp_path / "errs.txt"
    other.write_text("%WER = 3.00\n")
    assert main(["compare", *(w.format(a=files[0], other=other) for w in words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and len(err.splitlines()) == 1
