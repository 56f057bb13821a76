"""Processes of one machine: the reason of the one that failed gets out, and a lost one comes back.

Most of it is played by processes that do not exist; the slow tests start real ones.
"""

import errno
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.errors import ConfigError, DataError, TrainingError, UserError
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train import elastic
from snowmelt.train.checkpoints import newest_checkpoint
from snowmelt.train.distributed import any_rank, process_group, sum_over_ranks
from snowmelt.train.elastic import is_lost_connection, launch, num_cores, restart_count
from snowmelt.train.trainer import RunOptions
from tests.train.checkpoints import differences
from tests.train.members import command, environment, train_or_die
from tests.train.noise import NoiseCorpus, train_on_noise

CPU = torch.device("cpu")

# Nothing here takes that long: what hangs shall fail.
_PATIENCE_S = 600

_LOST = RuntimeError("[/gloo/gloo/transport/tcp/pair.cc:5] Connection closed by peer [::1]:2. Oh.")


def _lost() -> TrainingError:
    error = TrainingError("process 0 of 2 has lost the others")
    error.__cause__ = _LOST
    return error


class _Play:
    """Plays `spawn`: for each start, how each process ends.

    None is well, an exception is told by the process itself, a number is its exit code and all
    there is. Keeps the environments that the processes were given.
    """

    def __init__(self, *starts: list[BaseException | int | None]) -> None:
        self._starts = list(starts)
        self.environments: list[dict[str, str]] = []

    def __call__(
        self, function: object, args: tuple[Any, ...], nprocs: int, join: bool
    ) -> "_Processes":
        environment, reports = args[:2]
        self.environments.append(environment)
        ends = self._starts.pop(0)
        assert len(ends) == nprocs and not join
        for rank, end in enumerate(ends):
            if isinstance(end, BaseException):
                lost = end is _LOST or is_lost_connection(end.__cause__)
                reports.put(elastic._Report(rank, end, is_consequence=lost))
        told = {
            rank: 0 if isinstance(end, KeyboardInterrupt) else 1 for rank, end in enumerate(ends)
        }
        return _Processes(
            [
                end if isinstance(end, int) else told[rank] if end else 0
                for rank, end in enumerate(ends)
            ]
        )


class _Processes:
    def __init__(self, exit_codes: Iterable[int]) -> None:
        self.processes = [_Process(code) for code in exit_codes]

    def pids(self) -> list[int]:
        return []

    def join(self, grace_period: float) -> bool:
        for rank, process in enumerate(self.processes):
            if process.exitcode:
                raise ProcessExitedException("", rank, 0, process.exitcode)
        return True


class _Process:
    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def join(self, timeout: float | None = None) -> None:
        pass

    def kill(self) -> None:
        pass


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Play]:
    """Puts a play in the place of real processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MASTER_PORT", raising=False)

    def put(*starts: list[BaseException | int | None]) -> _Play:
        play = _Play(*starts)
        monkeypatch.setattr(elastic, "spawn", play)
        return play

    return put


def _nothing() -> None: ...


def test_one_process_is_this_one() -> None:
    pids: list[int] = []
    launch(1, lambda: pids.append(os.getpid()))
    assert pids == [os.getpid()]
    assert num_cores() >= 1


def test_restarts_are_counted_by_whoever_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert restart_count() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert restart_count() == 2


@pytest.mark.parametrize(
    ("ends", "kind", "reason"),
    [
        ([_lost(), DataError("a.wav is empty")], DataError, "^a.wav is empty$"),
        ([_LOST, RuntimeError("process 1 of 2:\nKeyError")], RuntimeError, "KeyError"),
        ([_lost(), -signal.SIGKILL], TrainingError, r"^process 1 of 2 was killed \(SIGKILL\)"),
        ([-signal.SIGSEGV, _LOST], TrainingError, r"^process 0 of 2 crashed \(SIGSEGV\)$"),
        ([0, 3], TrainingError, "^process 1 of 2 ended with exit code 3$"),
        ([_lost(), _lost()], TrainingError, "has lost the others"),
        ([_lost(), -signal.SIGTERM], TrainingError, "has lost the others"),
        # Hung when the other was lost, and then asked to end.
        ([KeyboardInterrupt(), -signal.SIGKILL], TrainingError, "^process 1 of 2 was killed"),
        ([KeyboardInterrupt(), KeyboardInterrupt()], KeyboardInterrupt, None),
        ([KeyboardInterrupt(), UserError("disk full")], UserError, "disk full"),
    ],
)
def test_the_cause_is_told_and_not_its_consequences(
    play: Callable[..., _Play],
    ends: list[BaseException | int | None],
    kind: type[BaseException],
    reason: str | None,
) -> None:
    play(ends)
    with pytest.raises(kind, match=reason):
        launch(2, _nothing)


def test_advice_is_for_lost_processes(play: Callable[..., _Play]) -> None:
    play([0, -signal.SIGKILL])
    with pytest.raises(TrainingError, match=r"\(hint: take a nap; when it was the system"):
        launch(2, _nothing, advice=lambda: "take a nap")
    play([0, TrainingError("the loss is not finite")])
    with pytest.raises(TrainingError, match=r"^the loss is not finite$"):
        launch(2, _nothing, advice=lambda: "take a nap")


@pytest.mark.parametrize("end", [-signal.SIGKILL, -signal.SIGSEGV, _lost(), RuntimeError("a bug")])
def test_what_may_go_better_is_tried_again(
    play: Callable[..., _Play], end: BaseException | int, caplog: pytest.LogCaptureFixture
) -> None:
    played = play([0, end], [None, None])
    with caplog.at_level(logging.WARNING):
        launch(2, _nothing, max_restarts=3)
    counts = [e["TORCHELASTIC_RESTART_COUNT"] for e in played.environments]
    assert counts == ["0", "1"]
    (record,) = caplog.records
    assert record.getMessage().endswith("Starting again (1 of at most 3 times)")


def test_the_last_try_is_the_last(play: Callable[..., _Play]) -> None:
    played = play(*[[0, -signal.SIGKILL]] * 4)
    with pytest.raises(TrainingError, match="process 1 of 2 was killed"):
        launch(2, _nothing, max_restarts=2)
    assert len(played.environments) == 3


@pytest.mark.parametrize("end", [DataError("a.wav is empty"), KeyboardInterrupt()])
def test_mistakes_and_requests_to_stop_are_not_tried_again(
    play: Callable[..., _Play], end: BaseException
) -> None:
    play([None, end])
    with pytest.raises(type(end)):
        launch(2, _nothing, max_restarts=3)


def test_even_a_single_process_can_be_started_again(play: Callable[..., _Play]) -> None:
    played = play([-signal.SIGKILL], [None])
    launch(1, _nothing, max_restarts=1)
    assert [e["WORLD_SIZE"] for e in played.environments] == ["1", "1"]


def test_port(play: Callable[..., _Play], monkeypatch: pytest.MonkeyPatch) -> None:
    def port(master_port: int) -> int:
        played = play([None, None])
        launch(2, _nothing, master_port=master_port)
        return int(played.environments[0]["MASTER_PORT"])

    assert port(12354) == 12354
    assert 0 < port(0) < 65536
    with pytest.raises(ConfigError, match="--master-port 65536 is no port"):
        port(65536)
    monkeypatch.setenv("MASTER_PORT", "2345")
    assert port(12354) == port(0) == 2345
    monkeypatch.setenv("MASTER_PORT", "any")
    with pytest.raises(ConfigError, match="MASTER_PORT any is no port"):
        port(12354)


def _add_up(fail_with: str) -> None:
    """Fails the first time, but not when it is started again."""
    with process_group(CPU) as ranks:
        assert sum_over_ranks((float(ranks.rank), 1.0), ranks, CPU) == [1.0, 2.0]
        assert any_rank(ranks.rank == 1, ranks, CPU)
        if restart_count() > 0:
            return
        if ranks.rank == 1 and fail_with == "user error":
            raise DataError("a.wav is empty", "record it again")
        if ranks.rank == 1 and fail_with == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.pt")
        if ranks.rank == 1 and fail_with == "bug":
            raise KeyError("missing name")
        if ranks.rank == 1 and fail_with == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fail_with == "stop":
            if ranks.rank == 0:
                os.kill(os.getppid(), signal.SIGTERM)
            threading.Event().wait(60)
        # The one that did not fail waits here for the other.
        any_rank(False, ranks, CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "max_restarts", "kind", "reason"),
    [
        ("user error", 1, DataError, r"^a\.wav is empty \(hint: record it again\)$"),
        ("full disk", 1, UserError, r"^a\.pt: No space left on device$"),
        ("stop", 1, KeyboardInterrupt, None),
        ("bug", 0, RuntimeError, "process 1 of 2:(.|\n)*KeyError: 'missing name'"),
        ("kill", 0, TrainingError, r"^process 1 of 2 was killed \(SIGKILL\)"),
    ],
)
def test_the_reason_of_the_one_that_failed_gets_out(
    failure: str,
    max_restarts: int,
    kind: type[BaseException],
    reason: str | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(kind, match=reason):
        launch(2, _add_up, failure, max_restarts=max_restarts)
    assert "Traceback" not in capfd.readouterr().err
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_all_start_again_and_meet_at_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    launch(2, _add_up, "kill", max_restarts=1, master_port=port)
    assert not multiprocessing.active_children()


def _meet() -> None:
    with process_group(CPU):
        pass


@pytest.mark.slow
def test_a_port_that_is_taken_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(ConfigError, match="cannot meet at .* failed to listen.*--master-port"):
            launch(2, _meet, max_restarts=1, master_port=s.getsockname()[1])


def _wait_for_ever(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    threading.Event().wait(_PATIENCE_S)


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGKILL]])
def test_no_process_outlives_the_one_that_started_it(
    tmp_path: Path, signals: list[signal.Signals]
) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.train.test_elastic import *;"
        "from tests.train.test_elastic import _wait_for_ever;"
        "launch(2, _wait_for_ever, Path(sys.argv[1]))"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=environment(), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + _PATIENCE_S
    pids: list[int] = []
    try:
        while len(pids) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            pids = [int(text) for p in tmp_path.iterdir() if (text := p.read_text())]
        for number in signals:
            time.sleep(1)  # two within a third of a second would count as one
            launcher.send_signal(number)
        launcher.communicate(timeout=_PATIENCE_S)
        assert len(pids) == 2
        while any(map(_is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(_is_alive, pids))
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_killed_run_that_starts_again_is_the_same_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, train=replace(config.train, average_period=200, save_every_n=200))
    whole, killed = (RunOptions(tmp_path / n, data_dir, tensorboard=False) for n in ("a", "b"))
    launch(2, train_on_noise, config, tokenizer, whole)
    launch(2, train_or_die, config, tokenizer, killed, 3, max_restarts=1)
    log = "".join(p.read_text() for p in (killed.exp_dir / "log").iterdir())
    assert "Resuming from" in log
    assert not differences(
        load_checkpoint(whole.exp_dir / "epoch-2.pt"),
        load_checkpoint(killed.exp_dir / "epoch-2.pt"),
    )


def _run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, and see that no process is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=_PATIENCE_S)
        deadline = time.monotonic() + _PATIENCE_S
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


@pytest.mark.slow
def test_a_killed_run_on_the_command_line(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    NoiseCorpus(data_dir / "noise").prepare()
    whole, resumed, restarted, torchrun = (
        tmp_path / n for n in ("whole", "resumed", "restarted", "torchrun")
    )
    result = _run(command(whole, data_dir, world_size="2"))
    assert result.returncode == 0, result.stderr

    killed = _run(command(resumed, data_dir, world_size="2"), KILL_AT_BATCH="3")
    assert killed.returncode == 2 and killed.stdout == ""
    said = [line for line in killed.stderr.splitlines() if "[" not in line]
    assert len(said) == 1, killed.stderr
    assert said[0].startswith("snowmelt: error: process 1 of 2 was killed (SIGKILL) (hint: ")
    newest = newest_checkpoint(resumed)
    assert newest is not None and f"go on from {newest.name} with --resume auto; " in said[0]
    assert not (resumed / "epoch-2.pt").exists()
    result = _run(command(resumed, data_dir, world_size="2", resume="auto"))
    assert result.returncode == 0 and "Resuming from" in result.stderr, result.stderr

    result = _run(command(restarted, data_dir, world_size="2", max_restarts="1"), KILL_AT_BATCH="3")
    assert result.returncode == 0 and "Starting again (1 of at most 1 times)" in result.stderr

    start = ["torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", "-m"]
    again = _run([*start, *command(torchrun, data_dir)], KILL_AT_BATCH="3")
    assert again.returncode == 0 and "Resuming from" in again.stderr, again.stderr

    last = load_checkpoint(whole / "epoch-2.pt")
    for exp_dir in (resumed, restarted, torchrun):
        assert not differences(last, load_checkpoint(exp_dir / "epoch-2.pt"))
