"""A dask cluster whose workers are jobs: at DIRAC sites, or without further words processes of this machine.

`DiracCluster` is the face that dask knows.  What runs below it, and is kept running, is `ClusterJobs`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, cast

from distributed import Status
from distributed.core import rpc
from distributed.deploy.cluster import Cluster

from coffea_dirac.cluster.adapting import Adapt, Demand, least_busy
from coffea_dirac.cluster.embedded import default_worker_count
from coffea_dirac.cluster.size import ClusterSize
from coffea_dirac.cluster.table import groups_without_workers, html, table, waiting_for
from coffea_dirac.dirac.cluster_jobs import IMPORTS, ClusterJobs
from coffea_dirac.dirac.losses import DEFAULT_BUDGET, Budget
from coffea_dirac.dirac.places import CPU_TIME_S, WorkerGroup
from coffea_dirac.dirac.transport import LOCAL, LOOPBACK, transport_of
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, JobServiceError
from coffea_dirac.interfaces import Job, JobService, Json

logger = logging.getLogger(__name__)

CHECK_S = 0.2
USAGE_CHECKS = 25
ADAPT_S = 1.0
TELL_S = 30.0
SAID = 3
NO_WORKER_S, QUEUE_S = 300.0, 24 * 3600.0
"""How long a run goes on without any worker, on this machine and in the queue of a site."""


class DiracCluster(Cluster):  # type: ignore[misc]  # distributed is not typed
    """A dask cluster whose workers are jobs.

    Nothing is started before `start`, or the first ``Client(cluster)``.  With `sites` or `groups` the workers are jobs
    of DIRAC; there are as many as there is work for, and none, nor a credential, before there is any.  Otherwise they
    are processes of this machine, of one thread each.

    Parameters
    ----------
    workers : int, optional
        How many workers to keep; at sites, by default, as many as there is work for (`adapt`), on this machine one for
        each core this process may use, or ``COFFEA_DIRAC_WORKERS``.
    sites : mapping or sequence of str, optional
        DIRAC sites, ``{name: how many workers at most}``, or a list of sites of which any will do.
    banned, cores, memory, cpu_time, tags, resources, environment, setup : optional
        What the workers are, as for `WorkerGroup`.
    groups : sequence of WorkerGroup, optional
        Workers of several kinds, instead of `sites` and these.
    diracx, credentials : str, optional
        The DiracX server, by default ``DIRACX_URL``, and a token file or proxy, by default where DIRAC looks.
    transport : str
        How workers reach the scheduler: ``tcp://ADDRESS`` with an address of this machine that they can reach, and that
        can reach them.  The traffic is neither encrypted nor authenticated.
    service : JobService, optional
        Who runs the workers, instead of DIRAC or this machine.
    imports : sequence of str
        Modules that a worker imports before it joins.
    memory_limit : int
        The same as `memory`, for workers of this machine.
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
    >>> cluster = DiracCluster(sites={"LCG.UKI-SOUTHGRID-RALPP.uk": 20, "LCG.UKI-LT2-IC-HEP.uk": 10}, cpu_time=7200)
    >>> cluster
    DiracCluster(created)
    """

    scheduler_comm: Any
    loop: Any
    status: Any
    tells_each_death = True
    """Whether a run hears of each death of a worker under its tasks (`start_scheduler.add_teller`)."""

    def __init__(  # noqa: PLR0913 - all of them by name
        self,
        workers: int | None = None,
        *,
        sites: Mapping[str, int] | Sequence[str] | None = None,
        banned: Sequence[str] = (),
        cores: int = 1,
        memory: int = 0,
        cpu_time: int = CPU_TIME_S,
        tags: Sequence[str] = (),
        resources: Mapping[str, float] | None = None,
        environment: str = "",
        setup: str = "",
        groups: Sequence[WorkerGroup] = (),
        diracx: str | None = None,
        credentials: str | None = None,
        transport: str = f"tcp://{LOOPBACK}",
        service: JobService | None = None,
        imports: Sequence[str] = IMPORTS,
        memory_limit: int = 0,
        budget: Budget = DEFAULT_BUDGET,
        jobs: ClusterJobs | None = None,
    ) -> None:
        super().__init__(quiet=True)
        if sites is not None and groups:
            raise ConfigurationError("give sites= or groups=, not both: each group has sites of its own")
        kind = WorkerGroup(
            sites=() if sites is None else sites,
            maximum=None if groups or sites is not None else sys.maxsize,
            banned=banned,
            cores=cores,
            memory=memory or memory_limit,
            cpu_time=cpu_time,
            tags=tags,
            resources=resources or {},
            environment=environment,
            setup=setup,
        )
        at_sites = bool(groups) or sites is not None
        if not at_sites and (banned or tags or environment or setup or diracx or credentials):
            raise ConfigurationError(
                "that is for workers at sites: say where, as in DiracCluster(sites=['LCG.A.uk'], ...)"
            )
        self.jobs = jobs or ClusterJobs(
            (0 if at_sites else default_worker_count()) if workers is None else workers,
            service=service or (_dirac_jobs(diracx, credentials) if at_sites else None),
            imports=imports,
            budget=budget,
            groups=groups or [kind],
            transport=transport_of(transport) if at_sites else LOCAL,
            owns_service=at_sites and service is None,
        )
        self.size = ClusterSize(self.jobs, Adapt() if at_sites and workers is None else None)
        self._start_timeout_s = budget.start_timeout_s
        self._watch_jobs_task: asyncio.Task[None] | None = None
        self._adapt_task: asyncio.Task[None] | None = None
        self._told_s = time.monotonic()
        self._client: Any = None
        self.no_worker_deadline_s = QUEUE_S if at_sites else NO_WORKER_S
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
            self.jobs.joined(worker["name"])
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
        self.jobs.used(await self.scheduler_comm.coffea_dirac_usage())

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
        if self.size.adapt is None:
            self.start()
        return self

    def executor_client(self) -> Any:
        """Return a client that ends with this cluster, the same one each time; it is not dask's default."""
        from distributed import Client

        if self._client is None or self._client.status != "running":
            self._client = Client(self, set_as_default=False)
        return self._client

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
        CoffeaDiracError
            Workers cannot be started or are lost too often, or the scheduler has ended.
        """
        self.jobs.check()

    def wait_for(self, n: int, timeout: float) -> None:
        """Wait until `n` workers have joined; every half minute it is said what they wait for.

        Parameters
        ----------
        n : int
            How many workers; as many are asked for, if the cluster adapts.
        timeout : float
            Seconds to wait.

        Raises
        ------
        CoffeaDiracError
            They did not come in time, or will not come.
        """
        self.ask_for(n)
        start = time.monotonic()
        while (joined := len(self.scheduler_info["workers"])) < n:
            self.check()
            if time.monotonic() > start + timeout:
                raise JobServiceError(
                    f"Only {joined} of {n} workers joined within {timeout:.0f} s.{self.waiting()} A busy "
                    f"machine or site: wait longer, wait_for({n}, timeout={2 * timeout:.0f}).{self._said()}"
                )
            self.tell_waiting()
            time.sleep(0.01)

    def _said(self) -> str:
        """Return what some workers that have not joined have printed."""
        found = ""
        with suppress(CoffeaDiracError):
            coming = [worker.job_id for worker in self.jobs.worker_jobs if not worker.joined][:SAID]
            found = "\n".join(filter(None, (self.jobs.service.logs(job)[-500:] for job in coming)))
        return f" The workers said:\n{found or '(nothing)'}"

    def tell_waiting(self) -> None:
        """Say what is waited for, every half minute, while no worker is there of a group that has been asked for."""
        now, lacking = time.monotonic(), groups_without_workers(self.jobs)
        if not lacking:
            self._told_s = now
        elif now > self._told_s + TELL_S:
            self._told_s = now
            some = " of the group " + " or ".join(map(repr, lacking)) if len(self.jobs.groups) > 1 else ""
            logger.warning("No worker%s yet.%s", some, self.waiting() or f" {len(self.workers)} start.")

    def waiting(self) -> str:
        """Return what is waited for, in a sentence for each site; nothing if all workers are there."""
        return waiting_for(self.jobs)

    def ask_for(self, n: int) -> None:
        """Say that there is work for `n` workers, so that a cluster that adapts need not find out step by step."""
        self.start()
        self.size.raise_to({self.jobs.groups[0].name: n})

    def scale(self, n: int | None = None, *, sites: Mapping[str, int] | None = None) -> None:
        """Keep `n` workers from now on, or so many at each site, and no longer adapt; idle ones go first.

        Parameters
        ----------
        n : int, optional
            How many workers, all sites together.
        sites : mapping, optional
            How many at each site; none at those not named.
        """
        if (n is None) == (sites is None):
            raise ConfigurationError("give a number or sites: cluster.scale(4), cluster.scale(sites={'LCG.A.uk': 4})")
        self.size.adapt = None
        self.start()
        self.loop.add_callback(self._scale, n if sites is None else self.size.at_sites(sites))

    scale_up = scale

    async def _scale(self, target: int | Mapping[str, int]) -> None:
        self.jobs.scale(target)
        surplus = self.jobs.surplus
        if surplus:
            demand = await self._demand()
            places = {worker.name: worker.place.key for worker in self.jobs.worker_jobs}
            await self.scale_down(least_busy(surplus, demand["busy"], places))

    async def scale_down(self, workers: Sequence[str]) -> None:
        """Let workers go, by name, after what they hold has been copied to others."""
        await self.scheduler_comm.retire_workers(names=[*workers, *self._also_known_as(workers)])
        self.jobs.let_go(workers)

    def distrust(self, name: str, why: str) -> None:
        """Replace a worker, by name, that fails at what succeeds elsewhere."""
        self.loop.add_callback(self._distrust, name, why)

    async def _distrust(self, name: str, why: str) -> None:
        await self.scheduler_comm.retire_workers(names=[name])
        self.jobs.distrust(name, why)

    def _also_known_as(self, workers: Sequence[str]) -> list[str]:
        """Return the names of workers that have come back after they had lost the scheduler."""
        names = [worker["name"] for worker in self.scheduler_info["workers"].values()]
        return [name for name in names if "~" in str(name) and name.partition("~")[0] in workers]

    # -- adapting

    def adapt(self, *, minimum: int = 0, maximum: int | None = None, idle: float = 600.0) -> None:
        """Have as many workers as there is work for, from now on.

        Parameters
        ----------
        minimum, maximum : int, optional
            Workers of each group; by default none, and what its sites allow, or this machine's cores.
        idle : float
            Seconds without work after which a worker ends.
        """
        if maximum is None and self.jobs.transport.in_file:
            maximum = default_worker_count()
        self.size.adapt = Adapt(minimum, maximum, idle)

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

    # -- telling

    def table(self) -> list[dict[str, Json]]:
        """Return a row for each worker: name, site, job, state, since when, and what DIRAC says of it."""
        return table(self.jobs)

    def usage(self) -> list[dict[str, Json]]:
        """Return a row for each site: workers that wait, are up, have ended, were lost; core-hours and CPU efficiency.

        Examples
        --------
        >>> cluster = DiracCluster(sites={"LCG.UKI-LT2-IC-HEP.uk": 2})
        >>> cluster.usage()
        []
        """
        if self.status == Status.running:
            with suppress(OSError):
                self.sync(self._ask_usage)
        return self.jobs.usage.rows(self.jobs.worker_jobs)

    def job_script(self) -> str:
        """Return what would be submitted for a worker of each place: job description and script.

        Examples
        --------
        >>> print(DiracCluster(sites={"LCG.UKI-LT2-IC-HEP.uk": 2}, cores=4).job_script())
        Executable = "job.sh";
        ...
        Site = {"LCG.UKI-LT2-IC-HEP.uk"};
        NumberOfProcessors = 4;
        ...
        exec "$python" -P -m coffea_dirac.dirac.start_worker worker.json
        """
        from coffea_dirac.dirac.jdl import job_description
        from coffea_dirac.dirac.script import job_script

        def text(job: Job) -> str:
            return f"{job_description(job, 'coffea-dirac-preview', 'SB:preview')}\n\n{job_script(job)}"

        return "\n".join(map(text, self.jobs.preview()))

    def logs(self, worker: str | None = None) -> dict[str, str]:
        """Return what workers have printed, by name; a job of DIRAC shows it when it has ended."""
        jobs = {name: job for name, job in self.workers.items() if worker in (None, name)}
        return {name: self.jobs.service.logs(job) for name, job in jobs.items()}

    @property
    def dashboard_link(self) -> str:
        """Empty: there is no dashboard."""
        return ""

    def __repr__(self) -> str:
        if self.status != Status.running:
            return f"DiracCluster({self.status.name})"
        joined = len(self.scheduler_info["workers"])
        return f"DiracCluster({self.scheduler_comm.address}, {joined} of {len(self.workers)} workers)"

    def _repr_html_(self, cluster_status: Any = None) -> str:
        return html(repr(self), self.table() if self.status == Status.running else [])


def _dirac_jobs(url: str | None, credentials: str | None) -> JobService:
    from coffea_dirac.dirac.diracx import DiracxJobs

    return DiracxJobs(url, credentials=credentials)
