"""How a cluster starts, what it does in its event loop while it runs, and how it ends.

The scheduler and the workers are `ClusterJobs`; here is what is said to and asked of the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, cast

from distributed import Status
from distributed.core import rpc
from distributed.deploy.cluster import Cluster

from coffea_dirac.cluster.adapting import Adapt, Demand, least_busy
from coffea_dirac.cluster.size import ClusterSize
from coffea_dirac.dirac.cluster_jobs import ClusterJobs
from coffea_dirac.errors import JobServiceError

logger = logging.getLogger(__name__)

CHECK_S = 0.2
USAGE_CHECKS = 25
ADAPT_S = 1.0


class ClusterLifecycle(Cluster):  # type: ignore[misc]  # distributed is not typed
    """A dask cluster over jobs, from its start to its end.

    Parameters
    ----------
    jobs : ClusterJobs
        Its scheduler and workers.
    adapt : Adapt, optional
        How the number of workers follows the work; None while a number is kept.
    start_timeout_s : float
        How long the scheduler may take to answer.
    """

    scheduler_comm: Any
    loop: Any
    status: Any

    def __init__(self, jobs: ClusterJobs, adapt: Adapt | None, *, start_timeout_s: float) -> None:
        super().__init__(quiet=True)
        self.jobs = jobs
        self.size = ClusterSize(jobs.roster, adapt)
        self._start_timeout_s = start_timeout_s
        self._watch_jobs_task: asyncio.Task[None] | None = None
        self._adapt_task: asyncio.Task[None] | None = None
        self._client: Any = None
        self._start_lock = threading.Lock()

    # -- starting

    def start(self) -> None:
        """Start the scheduler and the workers that are wanted now, and return when the scheduler answers.

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
            self.jobs.roster.joined(worker["name"])
        self._watch_jobs_task = asyncio.create_task(self._watch_jobs())
        self._adapt_task = asyncio.create_task(self._keep_adapting())

    async def _watch_jobs(self) -> None:
        """End the scheduler once no worker is left and none will come: its clients then stop waiting."""
        n = 0
        while self.jobs.failure is None or self.scheduler_info["workers"]:
            await asyncio.sleep(CHECK_S)
            n += 1
            if n % USAGE_CHECKS == 0:
                with suppress(OSError):
                    await self._ask_usage()
        with suppress(OSError):
            await self.scheduler_comm.terminate()

    async def _ask_usage(self) -> None:
        self.jobs.roster.used(await self.scheduler_comm.coffea_dirac_usage())

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":
            for worker in msg["workers"].values():
                self.jobs.roster.joined(worker["name"])
        super()._update_worker_status(op, msg)

    @property
    def scheduler_address(self) -> str:
        """Where the scheduler listens; asking for it starts the cluster."""
        if self.status == Status.created:
            self.start()
        return cast(str, self.scheduler_comm.address) if self.scheduler_comm else "<closed>"

    def __await__(self) -> Generator[Any, Any, Self]:
        """Let ``await cluster`` wait for nothing: dask does so, and whoever has the address has started us."""
        return self
        yield

    def __enter__(self) -> Self:
        if self.size.adapt is None:
            self.start()
        return self

    def executor_client(self) -> Any:
        """Return a client that ends with this cluster, the same one each time; it is not dask's default."""
        from distributed import Client

        if self._client is None or self._client.status != "running":
            self._client = Client(self, set_as_default=False)
        return self._client

    # -- the number of workers

    async def _scale(self, target: int | Mapping[str, int]) -> None:
        roster = self.jobs.roster
        roster.scale(target)
        surplus = roster.surplus
        if surplus:
            demand = await self._demand()
            places = {worker.name: worker.place.key for worker in roster.worker_jobs}
            await self.scale_down(least_busy(surplus, demand["busy"], places))

    async def scale_down(self, workers: Sequence[str]) -> None:
        """Let workers go, by name, after what they hold has been copied to others."""
        await self.scheduler_comm.retire_workers(names=[*workers, *self._also_known_as(workers)])
        self.jobs.roster.let_go(workers)

    def distrust(self, name: str, why: str) -> None:
        """Replace a worker, by name, that fails at what succeeds elsewhere."""
        self.loop.add_callback(self._distrust, name, why)

    async def _distrust(self, name: str, why: str) -> None:
        await self.scheduler_comm.retire_workers(names=[name])
        self.jobs.roster.distrust(name, why)

    def _also_known_as(self, workers: Sequence[str]) -> list[str]:
        """Return the names of workers that have come back after they had lost the scheduler."""
        names = [worker["name"] for worker in self.scheduler_info["workers"].values()]
        return [name for name in names if "~" in str(name) and name.partition("~")[0] in workers]

    async def _demand(self) -> Demand:
        """Return what the scheduler says, with each worker under the name of its job."""
        found = await self.scheduler_comm.coffea_dirac_demand()
        for kind in ("busy", "idle_s"):
            found[kind] = {name.partition("~")[0]: value for name, value in found[kind].items()}
        return cast(Demand, found)

    async def _keep_adapting(self) -> None:
        while True:
            await asyncio.sleep(ADAPT_S)
            if self.size.adapt is None:
                continue
            try:
                if idle := self.size.follow(await self._demand()):
                    await self.scale_down(idle)
            except OSError as error:  # the scheduler is busy, or about to end
                logger.debug("The number of workers could not be adapted: %s", error)
            except Exception:
                # The workers at hand go on, and no result depends on how many they are: told, and tried again.
                logger.exception("The number of workers could not be adapted.")

    # -- closing

    def close(self, timeout: float | None = 10.0) -> Any:
        """End the scheduler and all workers, and leave no job; a second call does nothing."""
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
        for task in (self._watch_jobs_task, self._adapt_task):
            if task is not None:
                task.cancel()
        if self._client is not None:
            with suppress(OSError, asyncio.TimeoutError):
                await self._client._close(fast=True)
        if self.scheduler_comm is not None:
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self.scheduler_comm.terminate(), 2)
        await super()._close()
        await asyncio.to_thread(self.jobs.close)

    def __del__(self, _warn: Callable[..., None] | None = None) -> None:
        if getattr(self, "status", Status.created) != Status.created:
            super().__del__()
