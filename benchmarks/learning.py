"""Does a model learn as well with the fast step as with the plain one? Runs of both, and a picture.

    python -m benchmarks.learning [--data-dir data] [--preset an4] [--steps 500] [--seeds 1,2,3]
        [--ways plain,float32,bf16] [--jobs 2] [--output learning]

Every run is a process with one thread that takes the same steps on the same batches: "plain" with
the model of `benchmarks.plain` (the optimiser is everywhere the package's, the plain one does not
clip), "float32" and "bf16" as training does. Losses per encoder frame go to OUTPUT.jsonl, a line a
run; runs that stand there already are not made again, so a broken comparison goes on. OUTPUT.png
shows them, and the table compares the mean loss of the last 100 steps with that of "plain".
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["main"]

_WAYS: Final = ("plain", "float32", "bf16")

# The losses whose mean is compared, and those of which a point of the picture is the mean.
_LAST: Final = 100
_SMOOTHED: Final = 20


class _Run(NamedTuple):
    """What tells runs apart."""

    way: str
    seed: int
    preset: str
    steps: int


def main() -> None:
    """Make the runs that are missing, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="(default: data)")
    parser.add_argument("--preset", default="an4", help="a corpus or model (default: an4)")
    parser.add_argument("--steps", type=int, default=500, help="(default: 500)")
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument("--ways", default=",".join(_WAYS), help="(default: all three)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--output", type=Path, default=Path("learning"), help="without ending")
    parser.add_argument("--one", metavar="RUN", help=argparse.SUPPRESS)  # what a process does
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_losses(_Run(**json.loads(args.one)), args.data_dir)))
        return
    seeds, ways = [int(seed) for seed in args.seeds.split(",")], args.ways.split(",")
    runs = [_Run(way, seed, args.preset, args.steps) for seed in seeds for way in ways]
    losses = _all_losses(runs, args)
    _print_table(ways, seeds, losses, args)
    _draw(ways, seeds, losses, args)


def _all_losses(runs: list[_Run], args: argparse.Namespace) -> dict[_Run, list[float]]:
    path = args.output.with_suffix(".jsonl")
    losses: dict[_Run, list[float]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            losses[_Run(**record["run"])] = record["losses"]
    missing = [run for run in runs if run not in losses]
    with ThreadPoolExecutor(args.jobs) as pool, path.open("a") as file:
        for run, result in zip(
            missing, pool.map(lambda r: _in_process(r, args.data_dir), missing), strict=True
        ):
            losses[run] = result
            file.write(json.dumps({"run": run._asdict(), "losses": result}) + "\n")
            file.flush()
            print(f"{run.way}, seed {run.seed}: {_last(result):.4f}", file=sys.stderr, flush=True)
    return losses


def _in_process(run: _Run, data_dir: Path) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.learning", "--data-dir", str(data_dir)]
    done = subprocess.run(
        [*command, "--one", json.dumps(run._asdict())],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    losses: list[float] = json.loads(done.stdout.splitlines()[-1])
    return losses


def _losses(run: _Run, data_dir: Path) -> list[float]:
    """Train; the loss per encoder frame of every step."""
    import torch

    from snowmelt.data.mix import MixItem
    from snowmelt.models.build import fold_feature_normalisation
    from snowmelt.train.build import new_state
    from snowmelt.train.corpus import TrainingCorpora
    from snowmelt.train.distributed import Ranks
    from snowmelt.train.guard import BadUtterances
    from snowmelt.train.launch import prepare_run, run_settings
    from snowmelt.train.resume import seed_batch
    from snowmelt.train.step import Learner

    torch.set_num_threads(1)
    device, ranks = torch.device("cpu"), Ranks(rank=0, world_size=1)
    with tempfile.TemporaryDirectory(prefix="learning-") as folder:
        plan = prepare_run(
            run_settings(
                preset=run.preset,
                corpus=None,
                mix=None,
                overrides={"train": {"seed": run.seed, "use_bf16": run.way == "bf16"}},
                assignments=[],
            ),
            exp_dir=Path(folder),
            data_dir=data_dir,
            manifest_dir=data_dir,
            musan_dir=None,
            bpe_model=None,
            device="cpu",
            world_size="1",
            tensorboard=False,
            inf_check=False,
            print_diagnostics=False,
            resume="no",
            start_epoch=1,
            start_batch=0,
        )
        config, options = plan.config, plan.options
        seed_batch(run.seed, 0, 0)
        data = TrainingCorpora(
            config,
            plan.tokenizer,
            ranks,
            data_dir=data_dir,
            manifest_dir=options.manifest_dir,
            musan_dir=options.musan_dir,
        )
        state = new_state(config, plan.tokenizer.vocab_size, device, ranks)
        if config.train.normalise_features:
            fold_feature_normalisation(state.objective.model, *data.feature_statistics())
        if run.way == "plain":
            from benchmarks.plain import make_model_plain

            make_model_plain(state)
        learner = Learner(state, state.objective, device, BadUtterances(options.exp_dir))
        state.objective.train()
        losses: list[float] = []
        while len(losses) < run.steps:
            state.scheduler.step_epoch(state.progress.epoch - 1)
            epoch_plan = data.plan(
                state.progress.epoch,
                first_step=state.progress.first_step,
                positions=state.progress.positions,
            )
            steps: list[tuple[MixItem, ...]] = epoch_plan.steps[: run.steps - len(losses)]
            for step in steps:
                totals, _ = learner.step(data.read(step), head=data.head(step[0].stream))
                losses.append(totals.per_frame()["loss"])
                state.progress.batch += 1
            state.progress.epoch += 1
            state.progress.batch = 0
        return losses


def _last(losses: list[float]) -> float:
    return statistics.mean(losses[-_LAST:])


def _print_table(
    ways: list[str], seeds: list[int], losses: dict[_Run, list[float]], args: argparse.Namespace
) -> None:
    print(f"\nMean loss of the last {_LAST} of {args.steps} steps, {args.preset}\n")
    print("| way | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | to the first |")
    print("|---" * (len(seeds) + 3) + "|")
    first = None
    for way in ways:
        values = [_last(losses[_Run(way, seed, args.preset, args.steps)]) for seed in seeds]
        mean = statistics.mean(values)
        first = mean if first is None else first
        cells = " | ".join(f"{value:.4f}" for value in values)
        print(f"| {way} | {cells} | {mean:.4f} | {mean / first - 1:+.1%} |")


def _draw(
    ways: list[str], seeds: list[int], losses: dict[_Run, list[float]], args: argparse.Namespace
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5))
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    styles = dict(zip(ways, ("tab:gray", "tab:blue", "tab:orange"), strict=False))
    for way in ways:
        for seed in seeds:
            values = losses[_Run(way, seed, args.preset, args.steps)]
            points = range(_SMOOTHED, len(values) + 1)
            means = [statistics.mean(values[n - _SMOOTHED : n]) for n in points]
            label = way if seed == seeds[0] else None
            axes.plot(points, means, color=styles[way], linewidth=0.9, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(f"nats per encoder frame, mean of {_SMOOTHED} steps")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(args.output.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
