"""How is the work of a step shared among the workers of a Dask cluster?

The cluster is somebody's, given by the address of its scheduler, or one of this machine that ends
with the block. Its workers must have snowmelt and see the same files under the same paths.

Invariant: as of `Workers`, results come in the order of the jobs, and are the same.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from snowmelt.core.errors import MissingExtraError, UserError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["DaskWorkers"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# Jobs that are handed out beyond the one each worker is busy with.
_AHEAD: Final = 2
# A scheduler answers at once, or is not there.
_PATIENCE_S: Final = 10


class DaskWorkers:
    """Workers of a Dask cluster.

    Args:
        num_jobs: processes of a cluster that is started here, when it is first needed.
        address: of the scheduler of a cluster that is there, HOST:PORT; None: one is started.

    Raises:
        MissingExtraError: Dask is not installed.
    """

    def __init__(self, num_jobs: int, address: str | None = None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise MissingExtraError(
                "Dask's distributed is not installed", "pip install 'snowmelt[dask]'"
            ) from None
        self._num_jobs = num_jobs
        self._address = address
        self._resources = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client = None
        self._resources.close()

    def map(self, function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Iterator[_Result]:
        """Results of `function` for each job, in order.

        Args:
            function: of a module's top level, so that other processes find it.
            jobs: taken one by one, a few ahead of the results.

        Raises:
            UserError: a job fails with one, the scheduler cannot be reached, it has no workers, or
                they were lost again and again.
        """
        from distributed import KilledWorker

        client = self._connected()
        ahead = _AHEAD * sum(client.nthreads().values())
        if not ahead:
            raise UserError(
                f"the Dask scheduler at {self._address} has no workers",
                f"start some: dask worker {self._address}",
            )
        # Paths count from here.
        there = partial(_in_folder, os.getcwd(), function)
        waiting: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                # Equal jobs are not one: what they leave may be gone.
                waiting.append(client.submit(there, job, pure=False))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except KilledWorker:
            raise UserError(
                "Dask's workers were lost again and again, perhaps because memory ran out",
                "run the same command again, it goes on where it stopped",
            ) from None
        finally:
            client.cancel(list(waiting))

    def _connected(self) -> "Client":
        from distributed import Client, LocalCluster

        if self._client is None:
            # Comings and goings inside a cluster are nobody's news.
            logging.getLogger("distributed").setLevel(logging.WARNING)
            cluster: LocalCluster | str | None = self._address
            if cluster is None:
                cluster = self._resources.enter_context(
                    LocalCluster(
                        n_workers=self._num_jobs, threads_per_worker=1, dashboard_address=None
                    )
                )
            try:
                client = Client(cluster, timeout=_PATIENCE_S)
            except (OSError, ValueError) as error:  # also TimeoutError
                raise UserError(
                    f"no Dask scheduler answers at {self._address}",
                    "start one: dask scheduler; its address is HOST:PORT",
                ) from error
            self._client = self._resources.enter_context(client)
        return self._client


def _in_folder(folder: str, function: Callable[[_Job], _Result], job: _Job) -> _Result:
    """What a worker runs."""
    if os.getcwd() != folder:
        os.chdir(folder)
    return function(job)
