"""The embedded default: one cluster on this machine, shared by all executors of a process.

This module imports neither dask's client nor coffea, so that the workers are on their way while this process still
imports what it needs to talk to them.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from coffea_dirac.dirac.cluster_jobs import ClusterJobs
from coffea_dirac.errors import ConfigurationError

if TYPE_CHECKING:
    from coffea_dirac.cluster.cluster import DiracCluster


def default_worker_count() -> int:
    """Return how many workers this machine gets: ``COFFEA_DIRAC_WORKERS``, or one for each core we may use.

    Raises
    ------
    ConfigurationError
        The variable is not a positive number.

    Examples
    --------
    >>> default_worker_count() >= 1
    True
    """
    text = os.environ.get("COFFEA_DIRAC_WORKERS", "")
    if not text:
        from dask.system import CPU_COUNT  # knows affinity and containers' quotas

        return int(CPU_COUNT)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"COFFEA_DIRAC_WORKERS={text!r} is not a number of workers; try 4.")
    return int(text)


class _Shared:
    """The one cluster of this process, and the client to it that executors use."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owner = 0
        self.cluster: DiracCluster | None = None
        self.client: Any = None

    def forget_what_ended(self) -> None:
        """Forget what a fork left us (it belongs to the parent) and what has been closed or has failed."""
        cluster = self.cluster
        alive = cluster is not None and cluster.status.name == "running" and cluster.jobs.failure is None
        if self.owner != os.getpid():
            self.lock = threading.RLock()  # the parent's may have been held when it forked
        elif cluster is not None and not alive:
            cluster.close()
        if self.owner != os.getpid() or not alive:
            self.owner, self.cluster, self.client = os.getpid(), None, None


_shared = _Shared()


def default_cluster(workers: int | None = None) -> DiracCluster:
    """Return this process's own cluster, started; later calls get the same one.

    Parameters
    ----------
    workers : int, optional
        At least so many workers; by default `default_worker_count`.  A cluster that has fewer grows.

    Raises
    ------
    JobServiceError
        The scheduler cannot be started.

    Examples
    --------
    >>> default_cluster(1) is default_cluster(1)
    True
    >>> default_cluster(1).close()
    """
    wanted = default_worker_count() if workers is None else workers
    with _shared.lock:
        _shared.forget_what_ended()
        if _shared.cluster is None:
            _shared.cluster = _started(wanted)
        elif wanted > len(_shared.cluster.workers):
            _shared.cluster.scale(wanted)
        return _shared.cluster


def _started(workers: int) -> DiracCluster:
    jobs = ClusterJobs(workers)
    jobs.start()
    from coffea_dirac.cluster.cluster import DiracCluster  # takes a second, in which the processes start

    cluster = DiracCluster(jobs=jobs)
    cluster.start()
    return cluster


def default_client(workers: int | None = None) -> Any:
    """Return the client of `default_cluster`; it does not become dask's global client.

    Parameters
    ----------
    workers : int, optional
        As for `default_cluster`.

    Returns
    -------
    distributed.Client
        The same one at each call, until it is closed.

    Raises
    ------
    JobServiceError
        The scheduler cannot be started.

    Examples
    --------
    >>> default_client(1).submit(sum, [1, 2]).result(timeout=60)
    3
    >>> default_cluster(1).close()
    """
    with _shared.lock:
        cluster = default_cluster(workers)
        if _shared.client is None or _shared.client.status != "running":
            from distributed import Client

            from coffea_dirac.dirac.start_scheduler import quick_versions

            with quick_versions():
                _shared.client = Client(cluster, set_as_default=False)
        return _shared.client
