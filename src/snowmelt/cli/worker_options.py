"""Which processes share the work of a preparation? The options, and what they name.

Invariant: nothing is started before the first job.
"""

import argparse
import os
from typing import TYPE_CHECKING

from snowmelt.cli.arguments import positive_int
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.prepare.workers import Executor

__all__ = ["add_worker_options", "chosen_workers"]


def add_worker_options(parser: argparse.ArgumentParser, *, max_jobs: int | None = None) -> None:
    """Add --nj, --executor and --dask-address; `max_jobs` bounds the default of --nj."""
    bound = "" if max_jobs is None else f", at most {max_jobs}"
    parser.add_argument(
        "--nj", type=positive_int, help=f"worker processes (default: one a core{bound})"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "dask"),
        default="local",
        help="who works: processes of this machine, or a Dask cluster (default: local)",
    )
    parser.add_argument(
        "--dask-address",
        metavar="HOST:PORT",
        help="Dask's scheduler (default: a cluster of --nj workers on this machine)",
    )
    parser.set_defaults(max_jobs=max_jobs)


def chosen_workers(args: argparse.Namespace) -> "Executor":
    """The workers that were asked for.

    Raises:
        UserError: options contradict each other, or Dask is not installed.
    """
    from snowmelt.prepare.dask_workers import DaskWorkers
    from snowmelt.prepare.workers import Workers

    if args.dask_address is not None and args.executor != "dask":
        raise ConfigError("--dask-address needs Dask", "add --executor dask")
    if args.dask_address is not None and args.nj is not None:
        raise ConfigError(
            "--nj has no meaning with --dask-address: the cluster has its own workers",
            "leave one of them out",
        )
    num_cores = len(os.sched_getaffinity(0))
    num_jobs = args.nj or min(args.max_jobs or num_cores, num_cores)
    if args.executor == "dask":
        return DaskWorkers(num_jobs, args.dask_address)
    return Workers(num_jobs)
