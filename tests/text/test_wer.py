"""Are the counts kaldialign's, and the files icefall's?"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.text.wer import WerStats, align, save_results, score

RESULTS = [
    ("u3", ["HELLO", "WORLD"], ["YELLOW", "WORD"]),
    ("u1", ["THE", "CAT", "SAT"], ["A", "CAT", "SAT", "DOWN"]),
    ("u2", ["ON", "THE", "MAT"], ["ON", "MAT"]),
]

ERRS = """\
%WER = 62.50
Errors: 1 insertions, 1 deletions, 3 substitutions, over 8 reference words (4 correct)
Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, INSERTIONS:, \
PER-WORD STATS:

PER-UTT DETAILS: corr or (ref->hyp)\N{SPACE}\N{SPACE}
u1:\t(THE->A) CAT SAT (*->DOWN)
u2:\tON (THE->*) MAT
u3:\t(HELLO WORLD->YELLOW WORD)

SUBSTITUTIONS: count ref -> hyp
1   WORLD -> WORD
1   THE -> A
1   HELLO -> YELLOW

DELETIONS: count ref
1   THE

INSERTIONS: count hyp
1   DOWN

PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp
THE   0 2 2 0
YELLOW   0 1 0 1
WORLD   0 1 1 0
WORD   0 1 0 1
HELLO   0 1 1 0
DOWN   0 1 0 1
A   0 1 0 1
SAT   1 0 1 1
ON   1 0 1 1
MAT   1 0 1 1
CAT   1 0 1 1
"""


@pytest.mark.parametrize(
    ("ref", "hyp", "pairs"),
    [
        ("a b", "c", [("a", "c"), ("b", None)]),
        ("a", "b c", [("a", "b"), (None, "c")]),
        ("a b", "b a", [("a", None), ("b", "b"), (None, "a")]),
        ("", "a", [(None, "a")]),
        ("a", "", [("a", None)]),
        ("", "", []),
        ("* a", "a *", [("*", None), ("a", "a"), (None, "*")]),
    ],
)
def test_ties_are_broken_as_in_kaldialign(
    ref: str, hyp: str, pairs: list[tuple[str | None, str | None]]
) -> None:
    assert align(ref.split(), hyp.split()) == pairs


words = st.lists(st.sampled_from("abc"), max_size=8)


@given(ref=words, hyp=words)
def test_the_number_of_errors_is_the_edit_distance(ref: list[str], hyp: list[str]) -> None:
    row = list(range(len(hyp) + 1))
    for i, ref_word in enumerate(ref, start=1):
        diagonal, row[0] = row[0], i
        for j, hyp_word in enumerate(hyp, start=1):
            substitution = diagonal + (ref_word != hyp_word)
            diagonal, row[j] = row[j], min(substitution, row[j] + 1, row[j - 1] + 1)
    stats = score([("u", ref, hyp)])
    assert stats.errors == row[-1]
    assert stats.num_ref_words == len(ref)
    assert stats.correct + stats.substitutions + stats.insertions == len(hyp)
    assert [a for a, _ in align(ref, hyp) if a is not None] == ref
    assert [b for _, b in align(ref, hyp) if b is not None] == hyp


def test_the_line_for_the_log() -> None:
    assert str(score(RESULTS)) == "%WER 62.50% [5 / 8, 1 ins, 1 del, 3 sub ]"


def test_no_reference_words() -> None:
    assert score([]).wer == 0.0
    assert score([("u", [], [])]).wer == 0.0
    assert score([("u", [], ["a"])]).wer == float("inf")


def test_the_files_of_one_setting(tmp_path: Path) -> None:
    stats = save_results({"greedy_search": RESULTS}, "test-clean", "epoch-1-avg-1", tmp_path / "g")
    assert stats == {"greedy_search": WerStats(8, insertions=1, deletions=1, substitutions=3)}
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "g").iterdir()}
    assert files == {
        "errs-test-clean-epoch-1-avg-1.txt": ERRS,
        "recogs-test-clean-epoch-1-avg-1.txt": (
            "u1:\tref=['THE', 'CAT', 'SAT']\nu1:\thyp=['A', 'CAT', 'SAT', 'DOWN']\n"
            "u2:\tref=['ON', 'THE', 'MAT']\nu2:\thyp=['ON', 'MAT']\n"
            "u3:\tref=['HELLO', 'WORLD']\nu3:\thyp=['YELLOW', 'WORD']\n"
        ),
        "wer-summary-test-clean-epoch-1-avg-1.txt": "settings\tWER\ngreedy_search\t62.5\n",
    }


def test_every_setting_keeps_its_files(tmp_path: Path) -> None:
    perfect = [(cut_id, ref, ref) for cut_id, ref, _ in RESULTS]
    ranked = save_results({"beam_4": RESULTS, "beam_8": perfect}, "test", "s", tmp_path)
    assert list(ranked) == ["beam_8", "beam_4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "errs-test-beam_4-s.txt",
        "errs-test-beam_8-s.txt",
        "recogs-test-beam_4-s.txt",
        "recogs-test-beam_8-s.txt",
        "wer-summary-test-s.txt",
    ]
    summary = (tmp_path / "wer-summary-test-s.txt").read_text(encoding="utf-8")
    assert summary == "settings\tWER\nbeam_8\t0.0\nbeam_4\t62.5\n"
    assert (tmp_path / "errs-test-beam_4-s.txt").read_text(encoding="utf-8") == ERRS


def test_the_last_setting_wins_in_compat_mode(tmp_path: Path) -> None:
    perfect = [(cut_id, ref, ref) for cut_id, ref, _ in RESULTS]
    results = {"beam_8": perfect, "beam_4": RESULTS}
    save_results(results, "test", "s", tmp_path, icefall_compat=True)
    assert (tmp_path / "errs-test-s.txt").read_text(encoding="utf-8") == ERRS
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_results({"greedy_search": RESULTS}, "test", "s", tmp_path)

    def no_rename(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_rename)
    with pytest.raises(ValueError, match="No space left"):
        save_results({"greedy_search": []}, "test", "s", tmp_path)
    assert (tmp_path / "errs-test-s.txt").read_text(encoding="utf-8") == ERRS
    assert len(list(tmp_path.iterdir())) == 3


def test_unsplit_text_is_a_bug() -> None:
    with pytest.raises(TypeError, match="words of u1 must be lists"):
        score([("u1", "THE CAT", "THE CAT")])
