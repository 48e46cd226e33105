"""A dask cluster whose workers are jobs; without further words, processes of this machine.

`DiracCluster` is the face that dask knows.  What runs below it, and is kept running, is `ClusterJobs`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, Self, cast

from distributed import Status
from distributed.core import rpc
from distributed.deploy.cluster import Cluster

from coffea_dirac.dirac.cluster_jobs import DEFAULT_BUDGET, IMPORTS, Budget, ClusterJobs
from coffea_dirac.embedded import default_worker_count
from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import JobService

logger = logging.getLogger(__name__)

CHECK_S = 0.2


class DiracCluster(Cluster):  # type: ignore[misc]  # distributed is not typed
    """A dask cluster whose workers are jobs of one thread each.

    Nothing is started before `start`, the first use as a context manager, or the first ``Client(cluster)``.

    Parameters
    ----------
    workers : int, optional
        How many workers to keep; by default as many as this process may use cores, or ``COFFEA_DIRAC_WORKERS``.
    service : JobService, optional
        Who runs the workers; by default they are processes of this machine.
    imports : sequence of str
        Modules that a worker imports before it joins.
    memory_limit : int
        Bytes a worker may use before it ends and is replaced; 0 (default) for no limit.
    budget : Budget
        When lost workers are no longer replaced.
    jobs : ClusterJobs, optional
        Jobs already on their way, instead of all of the above.

    Examples
    --------
    >>> from distributed import Client
    >>> with DiracCluster(1, imports=()) as cluster, Client(cluster) as client:
    ...     client.submit(sum, [1, 2, 3]).result(timeout=60)
    6
    """

    scheduler_comm: Any
    loop: Any
    status: Any
    tells_each_death = True
    """Whether a run hears of each death of a worker under its tasks (`start_scheduler.add_teller`)."""

    def __init__(
        self,
        workers: int | None = None,
        *,
        service: JobService | None = None,
        imports: Sequence[str] = IMPORTS,
        memory_limit: int = 0,
        budget: Budget = DEFAULT_BUDGET,
        jobs: ClusterJobs | None = None,
    ) -> None:
        super().__init__(quiet=True)
        self.jobs = jobs or ClusterJobs(
            default_worker_count() if workers is None else workers,
            service=service,
            imports=imports,
            memory_limit=memory_limit,
            budget=budget,
        )
        self._start_timeout_s = budget.start_timeout_s
        self._watch_jobs_task: asyncio.Task[None] | None = None
        self._start_lock = threading.Lock()

    # -- starting

    def start(self) -> None:
        """Start the scheduler and the workers, and return when the scheduler answers.

        Raises
        ------
        JobServiceError
            It does not, or the cluster is closed.
        """
        with self._start_lock:
            if self.status == Status.running:
                return
            if self.status != Status.created:
                raise JobServiceError(f"This cluster is {self.status.name}; make a new one: DiracCluster().")
            try:
                self.jobs.start()
                self._loop_runner.start()
                self.sync(self._connect)
            except BaseException:  # also Ctrl-C: nothing may stay behind
                self.status = Status.failed
                self.close()
                raise

    async def _connect(self) -> None:
        address = await asyncio.to_thread(self.jobs.wait_for_address, self._start_timeout_s)
        self.scheduler_comm = rpc(address)
        await super()._start()
        for worker in self.scheduler_info["workers"].values():
            self.jobs.joined(worker["name"])
        self._watch_jobs_task = asyncio.create_task(self._watch_jobs())

    async def _watch_jobs(self) -> None:
        """End the scheduler once no worker is left and none will come: its clients then stop waiting."""
        while self.jobs.failure is None or self.scheduler_info["workers"]:
            await asyncio.sleep(CHECK_S)
        with suppress(OSError):
            await self.scheduler_comm.terminate()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":
            for worker in msg["workers"].values():
                self.jobs.joined(worker["name"])
        super()._update_worker_status(op, msg)

    @property
    def scheduler_address(self) -> str:
        """Where the scheduler listens; asking for it starts the cluster."""
        if self.status == Status.created:
            self.start()
        return cast(str, self.scheduler_comm.address) if self.scheduler_comm else "<closed>"

    def __await__(self) -> Generator[Any, Any, DiracCluster]:
        """Let ``await cluster`` wait for nothing: dask does so, and whoever has the address has started us."""
        return self
        yield

    def __enter__(self) -> Self:
        self.start()
        return self

    # -- workers

    @property
    def workers(self) -> dict[str, str]:
        """The workers that are up or on their way: name -> job id."""
        return self.jobs.workers

    @property
    def plan(self) -> set[str]:
        """Names of the workers there shall be, as dask's adaptive scaling asks for them."""
        return set(self.workers)

    requested = plan

    def check(self) -> None:
        """Raise what stopped the replacing of workers, if anything did.

        Raises
        ------
        JobServiceError
            Workers cannot be started or are lost too often, or the scheduler has ended.
        """
        self.jobs.check()

    def wait_for(self, n: int, timeout: float) -> None:
        """Wait until `n` workers have joined.

        Parameters
        ----------
        n : int
            How many workers.
        timeout : float
            Seconds to wait.

        Raises
        ------
        JobServiceError
            They did not come in time, or will not come.
        """
        self.start()
        deadline = time.monotonic() + timeout
        while (joined := len(self.scheduler_info["workers"])) < n:
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(self.jobs.service.logs(job)[-500:] for job in self.workers.values())
                raise JobServiceError(
                    f"Only {joined} of {n} workers joined within {timeout:.0f} s. A busy machine or site: wait longer, "
                    f"wait_for({n}, timeout={2 * timeout:.0f}). The workers said:\n{logs or '(nothing)'}"
                )
            time.sleep(0.01)

    def scale(self, n: int) -> None:
        """Keep `n` workers from now on; of those too many, idle ones go first."""
        self.start()
        self.loop.add_callback(self._scale, n)

    scale_up = scale

    async def _scale(self, n: int) -> None:
        surplus = len(self.workers) - n
        if surplus <= 0:
            await asyncio.to_thread(self.jobs.scale, n)
            return
        coming = [name for name in self.workers if name not in self.observed][:surplus]
        idle = await self.scheduler_comm.workers_to_close(n=surplus - len(coming), attribute="name")
        await self.scale_down([*coming, *idle])

    async def scale_down(self, workers: Sequence[str]) -> None:
        """Let workers go, by name, after what they hold has been copied to others."""
        await self.scheduler_comm.retire_workers(names=list(workers))
        await asyncio.to_thread(self.jobs.let_go, workers)

    # -- closing

    def close(self, timeout: float | None = 10.0) -> Any:
        """End the scheduler and all workers; a second call does nothing."""
        if self.status == Status.created:
            self.status = Status.closed
        if self.status == Status.closed:
            return super().close()
        if self._is_called_from_loop():
            return self._close()
        try:
            with suppress(TimeoutError):
                super().close(timeout)
        finally:
            self.jobs.close()
            self.status = Status.closed
            self._loop_runner.stop()
        return None

    def _is_called_from_loop(self) -> bool:
        return bool(self._loop_runner.is_started() and self.asynchronous)

    async def _close(self) -> None:
        if self.status in (Status.closing, Status.closed):
            return
        if self._watch_jobs_task is not None:
            self._watch_jobs_task.cancel()
        if self.scheduler_comm is not None:
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self.scheduler_comm.terminate(), 2)
        await super()._close()
        await asyncio.to_thread(self.jobs.close)

    def __del__(self, _warn: Callable[..., None] | None = None) -> None:
        if getattr(self, "status", Status.created) != Status.created:
            super().__del__()

    # -- telling

    @property
    def dashboard_link(self) -> str:
        """Empty: there is no dashboard."""
        return ""

    def __repr__(self) -> str:
        if self.status != Status.running:
            return f"DiracCluster({self.status.name})"
        joined = len(self.scheduler_info["workers"])
        return f"DiracCluster({self.scheduler_comm.address}, {joined} of {len(self.workers)} workers)"
