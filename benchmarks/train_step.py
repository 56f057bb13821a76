"""How many seconds of audio does a second of training take in? Ours beside plain torch.

    python -m benchmarks.train_step [--presets small-zipformer,zipformer] [--dtypes float32,bf16]
        [--rounds 3] [--processes 1] [--num-threads 1] [--other NAME=SRC ...] [--breakdown]

Every way of computing a step is a process of its own (`step_worker.py`): "now" is the source tree
on PYTHONPATH, "plain" the same classes in plain torch (`benchmarks.plain`), and `--other` the `src`
folder of any other revision. They take turns round by round, so that what else runs on the machine
falls on all alike; with `--processes 2` two of each kind run at once and their audio is added up.
Times are medians over the rounds. Beside the seconds of the wall stand those of the processor:
where others use the machine, compare these. The share of the peak counts the arithmetic of "now"
(others may do more of it, on padding) in the processor's seconds; the peak is the rate of matrix
products in the same process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.step_worker import AUDIO_S, KINDS, Job

__all__ = ["main"]


class _Process:
    """One worker, and how to ask it."""

    def __init__(self, job: Job, src: str | None) -> None:
        path = os.environ.get("PYTHONPATH", "") if src is None else src
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((path, os.getcwd()))}
        environment["OMP_NUM_THREADS"] = str(job.num_threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.step_worker", json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                "a process of the benchmark has died: run benchmarks.step_worker alone"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        self.send(command)
        return self.answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default="small-zipformer,zipformer")
    parser.add_argument("--dtypes", default="float32,bf16")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--processes", type=int, default=1, help="of each kind (default: 1)")
    parser.add_argument("--num-threads", type=int, default=1, help="of each process (default: 1)")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=SRC")
    parser.add_argument("--breakdown", action="store_true", help="by kind of work, in ms")
    args = parser.parse_args()
    others = dict(other.split("=", 1) for other in args.other)
    for preset in args.presets.split(","):
        print(f"\n{preset}, {args.processes} processes, {args.num_threads} threads each\n")
        print(
            "| way | type | audio-s/s | s a step | CPU s a step | fastest, slowest | peak RSS MB |",
            end="",
        )
        print(" share of the peak |\n|---|---|---|---|---|---|---|---|", flush=True)
        for dtype in args.dtypes.split(","):
            _measure(preset, dtype, args, others)


def _measure(preset: str, dtype: str, args: argparse.Namespace, others: dict[str, str]) -> None:
    ways: dict[str, list[_Process]] = {}
    for name, src in {"plain": None, **others, "now": None}.items():
        job = Job(preset, dtype == "bf16", args.num_threads, is_plain=name == "plain")
        ways[name] = [_Process(job, src) for _ in range(args.processes)]
    rounds: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for processes in ways.values():
        for process in processes:
            process.answer()  # it is ready
    for n in range(args.rounds + 1):
        for name, processes in ways.items():
            for process in processes:
                process.send("round")
            answers = [process.answer() for process in processes]
            if n > 0:  # the first compiles and fills caches
                rounds[name].append(answers)
            peaks[name] = max(peaks.get(name, 0.0), processes[0].ask("peak")["gflops"])
    gflop = ways["now"][0].ask("flops")["gflop"]
    for name, processes in ways.items():
        wall = [max(a["wall"] for a in answers) for answers in rounds[name]]
        cpu = [statistics.mean(a["cpu"] for a in answers) for answers in rounds[name]]
        rss = max(a["rss_mb"] for answers in rounds[name] for a in answers)
        rate = AUDIO_S * len(processes) / statistics.median(wall)
        share = gflop / statistics.median(cpu) / peaks[name]
        print(
            f"| {name} | {dtype} | {rate:.1f} | {statistics.median(wall):.2f} | "
            f"{statistics.median(cpu):.2f} | {min(cpu):.2f}, {max(cpu):.2f} | {rss:.0f} | "
            f"{share:.0%} of {peaks[name]:.0f} GFLOP/s |",
            flush=True,
        )
    if args.breakdown:
        print("\n| way | " + " | ".join((*KINDS, "other")) + " |\n|" + "---|" * (len(KINDS) + 2))
        for name, processes in ways.items():
            times = processes[0].ask("breakdown")
            print(f"| {name} | " + " | ".join(f"{times[k]:.0f}" for k in (*KINDS, "other")) + " |")
    for processes in ways.values():
        for process in processes:
            process.close()


if __name__ == "__main__":
    main()
