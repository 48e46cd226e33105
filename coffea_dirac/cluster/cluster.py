"""A dask cluster whose workers are jobs: at DIRAC sites, or without further words processes of this machine.

`DiracCluster` is the face: options, numbers, and what is told.  How it starts, runs and ends is in `lifecycle`; what
runs below it, and is kept running, is `ClusterJobs`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from distributed import Status

from coffea_dirac.cluster.adapting import Adapt
from coffea_dirac.cluster.embedded import default_worker_count
from coffea_dirac.cluster.lifecycle import ClusterLifecycle
from coffea_dirac.cluster.table import groups_without_workers, html, table, waiting_for
from coffea_dirac.dirac.cluster_jobs import IMPORTS, ClusterJobs
from coffea_dirac.dirac.losses import DEFAULT_BUDGET, Budget
from coffea_dirac.dirac.places import CPU_TIME_S, WorkerGroup, size_bytes
from coffea_dirac.dirac.transport import LOCAL, LOOPBACK, transport_of
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, JobServiceError
from coffea_dirac.interfaces import Job, JobService, Json

logger = logging.getLogger(__name__)

TELL_S = 30.0
SAID = 3
NO_WORKER_S, QUEUE_S = 300.0, 24 * 3600.0
"""How long a run goes on without any worker, on this machine and in the queue of a site."""


class DiracCluster(ClusterLifecycle):
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

    tells_each_death = True
    """Whether a run hears of each death of a worker under its tasks (`start_scheduler.add_teller`)."""

    def __init__(  # noqa: PLR0913 - all of them by name
        self,
        workers: int | None = None,
        *,
        sites: Mapping[str, int] | Sequence[str] | None = None,
        banned: Sequence[str] = (),
        cores: int = 1,
        memory: int | str = 0,
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
        if sites is not None and groups:
            raise ConfigurationError("give sites= or groups=, not both: each group has sites of its own")
        own = (banned, tags, resources, environment, setup, memory, memory_limit, cores != 1, cpu_time != CPU_TIME_S)
        _check_groups(groups, are_alone=not any(own))
        if workers is not None and not isinstance(workers, int):
            raise ConfigurationError(f"workers={workers!r}: it is a whole number, as in DiracCluster(4)")
        kind = WorkerGroup(
            sites=() if sites is None else sites,
            maximum=None if groups or sites is not None else sys.maxsize,
            banned=banned,
            cores=cores,
            memory=size_bytes(memory or memory_limit),
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
        jobs = jobs or ClusterJobs(
            (0 if at_sites else default_worker_count()) if workers is None else workers,
            service=service or (_dirac_jobs(diracx, credentials) if at_sites else None),
            imports=imports,
            budget=budget,
            groups=groups or [kind],
            transport=transport_of(transport) if at_sites else LOCAL,
            owns_service=at_sites and service is None,
        )
        super().__init__(
            jobs, Adapt() if at_sites and workers is None else None, start_timeout_s=budget.start_timeout_s
        )
        self._told_s = time.monotonic()
        self.no_worker_deadline_s = QUEUE_S if at_sites else NO_WORKER_S

    # -- workers

    @property
    def workers(self) -> dict[str, str]:
        """The workers that are up or on their way: name -> job id."""
        return self.jobs.roster.workers

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
            coming = [worker.job_id for worker in self.jobs.roster.worker_jobs if not worker.joined][:SAID]
            found = "\n".join(filter(None, (self.jobs.service.logs(job)[-500:] for job in coming)))
        return f" The workers said:\n{found or '(nothing)'}"

    def tell_waiting(self) -> None:
        """Say what is waited for, every half minute, while no worker is there of a group that has been asked for."""
        now, lacking = time.monotonic(), groups_without_workers(self.jobs.roster)
        if not lacking:
            self._told_s = now
        elif now > self._told_s + TELL_S:
            self._told_s = now
            some = " of the group " + " or ".join(map(repr, lacking)) if len(self.jobs.roster.groups) > 1 else ""
            logger.warning("No worker%s yet.%s", some, self.waiting() or f" {len(self.workers)} start.")

    def waiting(self) -> str:
        """Return what is waited for, in a sentence for each site; nothing if all workers are there."""
        return waiting_for(self.jobs.roster)

    def ask_for(self, n: int) -> None:
        """Say that there is work for `n` workers, so that a cluster that adapts need not find out step by step."""
        self.start()
        self.size.raise_to({self.jobs.roster.groups[0].name: n})

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
        if n is not None and (not isinstance(n, int) or n < 0):
            raise ConfigurationError(f"cluster.scale({n!r}): it is how many workers to keep, as in cluster.scale(4)")
        self.size.adapt = None
        self.start()
        self.loop.add_callback(self._scale, n if sites is None else self.size.at_sites(sites))

    scale_up = scale

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
        numbers = (minimum, idle) if maximum is None else (minimum, idle, maximum)
        are_numbers = all(isinstance(number, int | float) and number >= 0 for number in numbers)
        if not are_numbers or (maximum is not None and maximum < minimum):
            raise ConfigurationError(
                f"adapt(minimum={minimum!r}, maximum={maximum!r}, idle={idle!r}): workers from none on, minimum at "
                "most maximum, idle in seconds, as in cluster.adapt(minimum=0, maximum=20, idle=600)"
            )
        if maximum is None and self.jobs.transport.in_file:
            maximum = default_worker_count()
        self.size.adapt = Adapt(minimum, maximum, idle)

    # -- telling

    def table(self) -> list[dict[str, Json]]:
        """Return a row for each worker: name, site, job, state, since when, and what DIRAC says of it."""
        return table(self.jobs.roster)

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
        return self.jobs.roster.usage.rows(self.jobs.roster.worker_jobs)

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


def _check_groups(groups: Sequence[WorkerGroup], *, are_alone: bool) -> None:
    if not isinstance(groups, list | tuple) or not all(isinstance(group, WorkerGroup) for group in groups):
        raise ConfigurationError(
            "groups is a list of WorkerGroup: groups=[WorkerGroup('cpu', sites=...), WorkerGroup('gpu', ...)]"
        )
    if groups and not are_alone:
        raise ConfigurationError(
            "what workers are is said of each group: groups=[WorkerGroup('cpu', cores=4, ...), ...]"
        )
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"groups have the names {', '.join(names)}: give each one of its own, as its workers'")


def _dirac_jobs(url: str | None, credentials: str | None) -> JobService:
    from coffea_dirac.dirac.diracx import DiracxJobs

    return DiracxJobs(url, credentials=credentials)
