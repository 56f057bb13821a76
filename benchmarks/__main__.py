"""How fast are the parts that decide the speed? Prints a table; asserts nothing.

    python -m benchmarks [NAME ...]     all, or those whose name contains one of the words

Each line of the first table is the median of several repetitions after one that is not counted,
with the fastest and slowest; the other tables compare programs that take turns, see `common.py`.
Run it on an idle machine; what else runs there shows in the spread.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import features, graph_search, loss

_REPETITIONS = 9


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="words in the names to run")
    parser.add_argument("--num-threads", type=int, default=1, help="(default: 1)")
    parser.add_argument(
        "--repetitions", type=int, default=_REPETITIONS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--k2-python", type=Path, metavar="PATH", help="Python of an environment that has k2"
    )
    parser.add_argument(
        "--trained", type=Path, metavar="FILE", help="inputs written by benchmarks.loss_inputs"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    print(
        f"{platform.machine()} {platform.system()}, {args.num_threads} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )
    chosen = {
        name: function
        for name, function in (features.benchmarks() | graph_search.benchmarks()).items()
        if not args.names or any(word in name for word in args.names)
    }
    if chosen:
        print("\n| what | median ms | fastest | slowest |\n| --- | --- | --- | --- |")
    for name, function in chosen.items():
        times = [1000 * seconds for seconds in _measure(function, args.repetitions)]
        median = statistics.median(times)
        print(f"| {name} | {median:.2f} | {min(times):.2f} | {max(times):.2f} |", flush=True)
    loss.print_tables(
        num_threads=args.num_threads,
        repetitions=args.repetitions,
        k2_python=args.k2_python,
        trained=args.trained,
        words=args.names,
    )


def _measure(function: Callable[[], object], repetitions: int) -> list[float]:
    """Seconds of each repetition."""
    function()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
