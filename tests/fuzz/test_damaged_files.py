"""Whatever a file holds: it loads, or one line says what is wrong with it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.damage import DAMAGES
from tests.fuzz.formats import LOADERS, write_healthy

_ROOT = Path(__file__).parents[2]


def _tried(folder: Path, num_cases: int) -> list[dict[str, Any]]:
    """Outcomes of all cases; a process that ended in one is followed by another."""
    outcomes: list[dict[str, Any]] = []
    while len(outcomes) < num_cases:
        command = [sys.executable, "-m", "tests.fuzz.worker", folder, len(outcomes), num_cases]
        done = subprocess.run(
            [str(word) for word in command], cwd=_ROOT, capture_output=True, text=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr
        outcomes += [line for line in lines if "outcome" in line]
        if lines[-1] == {"case": len(outcomes)}:
            text = f"the process ended with {done.returncode}: {done.stderr[-500:]}"
            outcomes.append({**lines[-1], "outcome": "crashed", "text": text})
    return outcomes


def _check(outcomes: list[dict[str, Any]]) -> None:
    wrong = [case for case in outcomes if case["outcome"] not in ("loaded", "refused")]
    assert wrong == []
    for case in outcomes:
        if case["outcome"] == "refused":
            assert "\n" not in case["text"]
            path = Path(case["file"])
            assert (path.parent.name or path.name) in case["text"], case  # it says where
    count = Counter(case["outcome"] for case in outcomes)
    assert count["refused"] > len(outcomes) // 2 and count["loaded"] > 0, count
    for case in outcomes:
        if case["damage"] in ("empty", "git-lfs pointer"):
            assert case["outcome"] == "refused", case


def test_a_hundred_damaged_files(tmp_path):
    write_healthy(tmp_path, "lstm")
    for name, load in LOADERS.items():
        load(tmp_path / name)
    assert len(LOADERS) * len(DAMAGES) >= 100
    _check(_tried(tmp_path, len(LOADERS) * len(DAMAGES)))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["zipformer", "lstm"])
def test_two_thousand_damaged_files(encoder, tmp_path):
    write_healthy(tmp_path, encoder)
    _check(_tried(tmp_path, 1000))
