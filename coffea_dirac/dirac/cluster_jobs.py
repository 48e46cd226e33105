"""The jobs of one cluster: a scheduler on this machine, and workers at a job service that are replaced when they end.

Nothing here imports dask: the processes are on their way before this process has imported what it needs to talk to
them.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.interfaces import Job, JobService

logger = logging.getLogger(__name__)

IMPORTS = ("coffea.processor", "coffea.nanoevents", "awkward", "uproot", "distributed")
"""What nearly every task of an analysis needs."""

CHECK_S = 0.2
LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Budget:
    """How often workers are replaced before somebody has to look.

    Parameters
    ----------
    start_failures : int
        So many workers in a row ended before they joined: no further one is started.
    lost : int
        So many workers that had joined were lost within `lost_within_s`: likewise.
    lost_within_s : float
        See `lost`.
    start_timeout_s : float
        A worker that has not joined by then is ended and counts as a start failure.
    """

    start_failures: int = 3
    lost: int = 30
    lost_within_s: float = 600.0
    start_timeout_s: float = 120.0


DEFAULT_BUDGET = Budget()


@dataclass(slots=True)
class _WorkerJob:
    job_id: str
    started: float
    joined: bool = False


class ClusterJobs:
    """Keeps a scheduler and a number of worker jobs alive, within a budget.

    Parameters
    ----------
    workers : int
        How many workers to keep.
    service : JobService, optional
        Who runs the worker jobs; by default processes of this machine.  The scheduler always runs on this machine.
    imports : sequence of str
        Modules that a worker imports before it joins.
    memory_limit : int
        Bytes a worker may use before it ends and is replaced; 0 for no limit.
    budget : Budget
        When to stop replacing workers.

    Examples
    --------
    >>> jobs = ClusterJobs(1, imports=())
    >>> jobs.start()
    >>> jobs.wait_for_address(timeout_s=60).startswith("tcp://127.0.0.1:")
    True
    >>> jobs.close()
    """

    def __init__(
        self,
        workers: int,
        *,
        service: JobService | None = None,
        imports: Sequence[str] = IMPORTS,
        memory_limit: int = 0,
        budget: Budget = DEFAULT_BUDGET,
    ) -> None:
        if workers < 1:
            raise ConfigurationError(f"A cluster needs at least one worker, not workers={workers}; try workers=2.")
        self.local = LocalJobs()
        self.service: JobService = self.local if service is None else service
        self.failure: JobServiceError | None = None
        self._wanted = workers
        self._imports = tuple(imports)
        self._memory_limit = memory_limit
        self._budget = budget
        self._scheduler = ""
        self._contact = Path()
        self._address = ""
        self._workers: dict[str, _WorkerJob] = {}
        self._count = 0
        self._start_failures = 0
        self._lost: deque[float] = deque()
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Submit the scheduler and the workers, and watch over them; returns before they are up."""
        with self._lock:
            if self._scheduler:
                return
            # By its path: `-m` would first import the package, and with it coffea, which a scheduler never needs.
            script = (str(Path(__file__).with_name("start_scheduler.py")), "contact")
            (self._scheduler,) = self.local.submit([Job(script)])
            self._contact = self.local.session(self._scheduler) / "contact"
            self._submit(self._wanted)
            # After LocalJobs registered its own: the last registered runs first, and must not see jobs as lost.
            atexit.register(self.close)
        threading.Thread(target=self._watch, name="cluster-jobs", daemon=True).start()

    def wait_for_address(self, timeout_s: float) -> str:
        """Return the scheduler's address, as soon as it answers.

        Raises
        ------
        JobServiceError
            The scheduler has ended, or did not answer in time, or no worker can be started.
        """
        deadline = time.monotonic() + timeout_s
        while not self._address:
            if self._contact.exists():
                self._address = self._contact.read_text()
            self.check()
            if self._stop.is_set():
                raise JobServiceError("The cluster was closed before its scheduler answered.")
            if time.monotonic() > deadline:
                raise JobServiceError(
                    f"The scheduler did not answer within {timeout_s:.0f} s; a very busy machine? It said:\n"
                    + _tail(self.local.logs(self._scheduler))
                )
            self._stop.wait(0.01)
        return self._address

    @property
    def workers(self) -> dict[str, str]:
        """The workers that are up or on their way: name -> job id."""
        with self._lock:
            return {name: worker.job_id for name, worker in self._workers.items()}

    def joined(self, name: str) -> None:
        """Take note that a worker has reached the scheduler."""
        with self._lock:
            if name in self._workers:
                self._workers[name].joined = True
                self._start_failures = 0

    def check(self) -> None:
        """Raise what stopped the replacing of workers, if anything did.

        Raises
        ------
        JobServiceError
            Workers cannot be started or are lost too often, or the scheduler has ended.
        """
        if self.failure is not None:
            raise self.failure

    def scale(self, workers: int) -> None:
        """Keep so many workers from now on; those too many are let go with `let_go`, not here."""
        with self._lock:
            self._wanted = workers
            self._submit(workers - len(self._workers))

    def let_go(self, names: Iterable[str]) -> None:
        """End these workers without replacing them."""
        with self._lock:
            gone = [self._workers.pop(name).job_id for name in names if name in self._workers]
            self._wanted -= len(gone)
        self.service.kill(gone)

    def close(self) -> None:
        """End all jobs; a second call, or a call in a forked child, does nothing."""
        if os.getpid() != self._owner:
            return
        self._stop.set()
        with self._lock:
            if not self._scheduler:
                return
            ids = [worker.job_id for worker in self._workers.values()]
            self._workers.clear()
            self._scheduler = ""
            try:
                self.service.kill(ids)
            finally:
                self.local.close()
        atexit.unregister(self.close)

    def _submit(self, number: int) -> None:
        names = [f"worker-{self._count + index}" for index in range(max(0, number))]
        if not names:
            return
        self._count += len(names)
        ids = self.service.submit([self._job(name) for name in names])
        now = time.monotonic()
        self._workers.update((name, _WorkerJob(job_id, now)) for name, job_id in zip(names, ids, strict=True))

    def _job(self, name: str) -> Job:
        options = {
            "name": name,
            "contact": str(self._contact),
            "imports": self._imports,
            "memory_limit": self._memory_limit,
            "timeout_s": self._budget.start_timeout_s,
            "directory": os.getcwd(),
            "path": [str(place) for place in sys.path],
        }
        script = ("-m", "coffea_dirac.dirac.start_worker", "worker.json")
        return Job(script, files={"worker.json": json.dumps(options).encode()})

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_S) and self.failure is None:
            try:
                with self._lock:
                    if not self._stop.is_set():
                        self._replace_ended()
            except JobServiceError as error:
                self.failure = error
                logger.error("%s", error)  # noqa: TRY400  # the message is meant for users, the traceback says nothing

    def _replace_ended(self) -> None:
        if self.local.status([self._scheduler])[self._scheduler] != "running":
            raise JobServiceError(
                "The cluster's scheduler has ended, and with it what its tasks knew of each other; start a new "
                "cluster. Its last words:\n" + _tail(self.local.logs(self._scheduler))
            )
        status = self.service.status([worker.job_id for worker in self._workers.values()])
        now = time.monotonic()
        for name, worker in list(self._workers.items()):
            late = not worker.joined and now - worker.started > self._budget.start_timeout_s
            if late or status[worker.job_id] in ("done", "failed", "killed"):
                del self._workers[name]
                if late:
                    self.service.kill([worker.job_id])
                self._count_loss(name, worker, late=late)
        self._submit(self._wanted - len(self._workers))

    def _count_loss(self, name: str, worker: _WorkerJob, *, late: bool) -> None:
        words = _tail(self.service.logs(worker.job_id))
        if not worker.joined:
            self._start_failures += 1
            why = f"did not join within {self._budget.start_timeout_s:.0f} s" if late else "ended before it joined"
            if self._start_failures >= self._budget.start_failures:
                raise JobServiceError(
                    f"{self._start_failures} workers in a row did not come up, so no more are started. The last one, "
                    f"job {worker.job_id}, {why}. Its last words:\n{words}"
                )
            return
        logger.warning("%s (job %s) was lost and is replaced. Its last words:\n%s", name, worker.job_id, words)
        now = time.monotonic()
        self._lost.append(now)
        while self._lost and now - self._lost[0] > self._budget.lost_within_s:
            self._lost.popleft()
        if len(self._lost) >= self._budget.lost:
            raise JobServiceError(
                f"{len(self._lost)} workers were lost within {self._budget.lost_within_s:.0f} s, so no more are "
                f"started. Does a task need more memory than there is? The last one was job {worker.job_id}. Its last "
                f"words:\n{words}"
            )


def _tail(log: str) -> str:
    """Return the last lines of a log.

    >>> _tail("")
    '(nothing)'
    """
    return "\n".join(log.splitlines()[-LOG_LINES:]) or "(nothing)"
