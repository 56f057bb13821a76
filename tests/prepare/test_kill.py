"""A preparation is killed, and killed again: what comes out is what an undisturbed one makes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import snowmelt
from snowmelt.prepare import features
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.places import Places
from snowmelt.prepare.plans import librispeech_steps
from tests.prepare import corpora

_PARTS = ("train-clean-5", "dev-clean-2")
_SMALL_GROUP = 5
_KILLED = 9


def _prepare() -> None:
    places = Places(Path("data"), Path("download"))
    steps = librispeech_steps(places, _PARTS, vocab_sizes=(20,))
    Pipeline("librispeech", places.data, steps).run(0, 5)


def _killed_at(rename: int, is_before: bool) -> bool:
    """Prepare in a child process that dies at this rename; False if it has fewer."""
    child = os.fork()
    if child == 0:
        count = 0
        replace: Callable[..., None] = os.replace

        def dying_replace(source: object, target: object) -> None:
            nonlocal count
            count += 1
            if count == rename and is_before:
                os._exit(_KILLED)
            replace(source, target)
            if count == rename:
                os._exit(_KILLED)

        os.replace = dying_replace
        code = 1
        try:
            _prepare()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _KILLED)
    return code == _KILLED


@pytest.fixture
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """What an undisturbed run makes; each call begins with nothing prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "_GROUP", _SMALL_GROUP)
    corpora.librispeech(Path("download"), _PARTS)
    corpora.musan(Path("download"))
    _prepare()
    content = corpora.content(Path("data"))

    def begin() -> dict[str, str]:
        shutil.rmtree("data")
        return content

    return begin


def _check(begin: Callable[[], dict[str, str]], renames: range) -> int:
    """Kill at each of the renames, from nothing each time; how many there were."""
    kills = 0
    for rename in renames:
        expected = begin()
        if not _killed_at(rename, is_before=rename % 2 == 0):
            break
        kills += 1
        assert corpora.content(Path("data")) != expected
        _prepare()
        assert corpora.content(Path("data")) == expected
    return kills


def test_killed_at_some_renames(undisturbed: Callable[[], dict[str, str]]) -> None:
    assert _check(undisturbed, range(1, 46, 9)) == 5


@pytest.mark.slow
def test_killed_at_every_rename(undisturbed: Callable[[], dict[str, str]]) -> None:
    assert _check(undisturbed, range(1, 1000)) >= 45


def test_killed_over_and_over(undisturbed: Callable[[], dict[str, str]]) -> None:
    expected = undisturbed()
    # The longest step has 12 renames; each run gets a little further.
    runs = 0
    while _killed_at(13, is_before=True):
        runs += 1
    assert 3 <= runs <= 12
    assert corpora.content(Path("data")) == expected


@pytest.mark.slow
def test_processes_killed_at_random(tmp_path: Path) -> None:
    """The command itself and its workers, twenty times, at times drawn from a seed."""
    downloads = tmp_path / "download"
    corpora.librispeech(downloads, _PARTS, speakers=3, utterances=10)
    corpora.musan(downloads)
    command = [
        *(sys.executable, "-m", "snowmelt", "prepare", "librispeech", "--mini-libri", "1"),
        *("--vocab-size", "20", "--nj", "2"),
    ]

    def run(kill_after_s: float | None, *, worker_only: bool = False) -> int:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(snowmelt.__file__).parents[1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            victims = _children(process.pid) if worker_only else [process.pid]
            for pid in victims[:1]:
                os.kill(pid, signal.SIGKILL)
        return process.wait()

    start = time.monotonic()
    assert run(None) == 0
    took_s = time.monotonic() - start
    expected = corpora.content(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    rng = random.Random(1)
    for n in range(20):
        if n % 5 == 0 and (tmp_path / "data").exists():
            shutil.rmtree(tmp_path / "data")
        code = run(rng.uniform(0.2, 1.0) * took_s, worker_only=n % 3 == 2)
        assert code in (0, 2, -signal.SIGKILL)
    assert run(None) == 0
    assert corpora.content(tmp_path / "data") == expected


def _children(parent: int) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                pids.append(int(entry.name))
    return sorted(pids, reverse=True)
