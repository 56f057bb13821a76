"""How fast are the parts that decide the speed? Prints a table; asserts nothing.

    python -m benchmarks [NAME ...]     all, or those whose name contains one of the words

Each line is the median of several repetitions after one that is not counted, with the fastest and
slowest. Run it on an idle machine; what else runs there shows in the spread.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import features, graph_search, lattice

_REPETITIONS = 9


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="words in the names to run")
    parser.add_argument("--num-threads", type=int, default=1, help="(default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    print(
        f"{platform.machine()} {platform.system()}, {args.num_threads} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )
    print("| what | median ms | fastest | slowest |\n| --- | --- | --- | --- |")
    for name, function in _all_benchmarks().items():
        if not args.names or any(word in name for word in args.names):
            times = [1000 * seconds for seconds in _measure(function)]
            median = statistics.median(times)
            print(f"| {name} | {median:.2f} | {min(times):.2f} | {max(times):.2f} |", flush=True)


def _all_benchmarks() -> dict[str, Callable[[], object]]:
    return features.benchmarks() | lattice.benchmarks() | graph_search.benchmarks()


def _measure(function: Callable[[], object]) -> list[float]:
    """Seconds of each repetition."""
    function()
    times = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
