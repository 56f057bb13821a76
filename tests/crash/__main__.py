"""Can a training be lost? Killed again and again, it must end as if nothing had happened.

    python -m tests.crash [NAME ...]    all trainings, or those whose name contains one of the words

Each training runs once undisturbed; then once more, killed with SIGKILL in batches, saves,
validations and starts, and gone on with by --resume auto. Compared are all checkpoints, to the bit,
and the history, in which every batch must occur once. Exit code 1 when anything differs.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snowmelt.core.errors import UserError
from tests.crash.plan import kill_and_resume, moments
from tests.crash.trainings import (
    BATCHES_BETWEEN_SAVES,
    TRAININGS,
    Training,
    prepare_small_corpora,
)
from tests.crash.verdict import final_digest, num_redone, problems
from tests.crash.watched import CrashTestError, Run


def main() -> int:
    """Run the chosen trainings and print what became of them."""
    args = _arguments()
    chosen = _chosen(args.names)
    # The folders are removed and the processes ended as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _folder(args.keep) as folder:
            print("preparing a part of digits and an4", flush=True)
            (folder / "data").mkdir()
            prepare_small_corpora(args.data_dir, folder / "data")
            results = []
            for number, training in enumerate(chosen):
                # As equal as possible; all of them together are as many as were asked for.
                num_kills = (args.kills + number) // len(chosen)
                results.append(_test(training, num_kills, args.seed, folder))
    except (CrashTestError, UserError) as error:
        print(f"crash test failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return _report(results, args.kills)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="words in the names to run")
    parser.add_argument("--kills", type=int, default=24, metavar="N", help="in all (default: 24)")
    parser.add_argument("--seed", default="1", help="of the moments (default: 1)")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="holds digits.tar and an4.tar"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="new folder for all that is written, and kept"
    )
    args = parser.parse_args()
    if not _chosen(args.names):
        parser.error(f"no training is called so; there are: {'; '.join(t.name for t in TRAININGS)}")
    if args.kills < len(_chosen(args.names)):
        parser.error(f"--kills {args.kills}: at least one for each of the trainings is needed")
    if args.keep is not None and args.keep.exists():
        parser.error(f"--keep {args.keep} exists already")
    return args


def _chosen(words: Sequence[str]) -> list[Training]:
    return [t for t in TRAININGS if not words or any(word in t.name for word in words)]


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="snowmelt-crash-") as name:
        yield Path(name)


@dataclass(frozen=True)
class _Result:
    """What became of one training."""

    training: Training
    runs: list[Run]
    redone: list[int]
    digest: str
    problems: list[str]

    @property
    def kills(self) -> list[Run]:
        return [run for run in self.runs if run.is_killed]


def _test(training: Training, num_kills: int, seed: str, folder: Path) -> _Result:
    name = training.name.replace(", ", "-").replace(" ", "-")
    print(f"\n== {training.name}", flush=True)
    whole = folder / f"{name}-whole"
    (undisturbed,) = kill_and_resume(training, [], whole, folder / "data")
    digest = final_digest(whole)
    print(f"undisturbed: {undisturbed.num_batches} batches, SHA-256 {digest[:16]}", flush=True)
    runs: list[Run] = []
    redone: list[int] = []
    wrong: list[str] = []
    # Moments that never came, because the training was done before, come in another try.
    while (left := num_kills - sum(run.is_killed for run in runs)) > 0:
        killed = folder / f"{name}-killed-{num_kills - left}"
        plan = moments(left, f"{seed} {killed.name}")
        new = kill_and_resume(training, plan, killed, folder / "data")
        if len(new) == 1:
            raise CrashTestError(f"{training.name} is too short to be killed")
        newly_redone = num_redone(new)
        for run, batches in zip(new, newly_redone, strict=True):
            print(_told(run, batches), flush=True)
        found = problems(whole, killed, new, most_redone=BATCHES_BETWEEN_SAVES)
        print(f"at the end: SHA-256 {final_digest(killed)[:16]}", *found, sep="\n  ", flush=True)
        runs, redone, wrong = runs + new, redone + newly_redone, wrong + found
    return _Result(training, runs, redone, digest, wrong)


def _told(run: Run, redone: int) -> str:
    """One process in a line."""
    if run.resumed_from is not None:
        words = f"from {run.resumed_from.name}, {redone} batches redone"
    elif run.num_batches:
        words = "from the start"
    else:
        words = "starting"
    if run.first_batch_s is not None:
        words += f", first batch after {run.first_batch_s:.1f} s"
    end = "finished"
    if run.is_killed:
        where = ", validating" * run.was_validating
        end = f"killed after {run.num_batches} batches{where}"
        if run.unfinished:
            end += f", writing {', '.join(sorted(run.unfinished))}"
    return f"  {words}; {end}"


def _report(results: Sequence[_Result], num_kills: int) -> int:
    """Print the table; the exit code."""
    print(
        "\n| training | kills | saving | validating | before a batch | batches | redone (most) "
        "| first batch after s, median (most) | SHA-256 | verdict |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for result in results:
        kills = result.kills
        seconds = [
            run.first_batch_s
            for run in result.runs
            if run.resumed_from is not None and run.first_batch_s is not None
        ]
        timing = f"{statistics.median(seconds):.1f} ({max(seconds):.1f})" if seconds else "-"
        print(
            f"| {result.training.name} | {len(kills)} | {sum(r.was_saving for r in kills)} "
            f"| {sum(r.was_validating for r in kills)} | {sum(not r.num_batches for r in kills)} "
            f"| {sum(r.num_batches for r in result.runs)} "
            f"| {sum(result.redone)} ({max(result.redone, default=0)}) | {timing} "
            f"| {result.digest[:12]} | {'FAILED' if result.problems else 'the same'} |"
        )
    done = sum(len(result.kills) for result in results)
    saving = sum(run.was_saving for result in results for run in result.kills)
    print(f"\n{done} kills, {saving} of them in a save")
    wrong = [f"{r.training.name}: {problem}" for r in results for problem in r.problems]
    if done < num_kills:
        wrong.append(f"{done} kills instead of {num_kills}")
    if not saving:
        wrong.append("no kill hit a save")
    for line in wrong:
        print(f"crash test failed: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
