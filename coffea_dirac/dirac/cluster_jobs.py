"""The jobs of one cluster: a scheduler on this machine, and workers at a job service that are replaced when they end.

Nothing here imports dask: the processes are on their way before this process has imported what it needs to talk to
them.  The job service is asked by one thread only, which never holds the lock meanwhile: it may take long to answer.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.dirac.losses import DEFAULT_BUDGET, Budget, ExhaustedError, Losses, tail
from coffea_dirac.dirac.places import WorkerGroup
from coffea_dirac.dirac.recipe import Recipe
from coffea_dirac.dirac.roster import Roster
from coffea_dirac.dirac.transport import LOCAL, Transport
from coffea_dirac.dirac.worker_job import WorkerJob
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, JobServiceError, JobServiceUnreachableError
from coffea_dirac.interfaces import Job, JobService

logger = logging.getLogger(__name__)

IMPORTS = ("coffea.processor", "coffea.nanoevents", "awkward", "uproot", "distributed")
"""What nearly every task of an analysis needs."""

CHECK_S = 0.2
LEAVE_S = 10.0
CLOSE_S = 15.0
SILENCE_S = 15.0


class ClusterJobs:
    """Keeps a scheduler and the workers that its `Roster` wants alive, within a budget.

    Parameters
    ----------
    workers : int
        How many workers to keep.
    service : JobService, optional
        Who runs the worker jobs; by default processes of this machine.  The scheduler always runs on this machine.
    imports : sequence of str
        Modules that a worker imports before it joins.
    budget : Budget
        When to stop replacing workers.
    groups : sequence of WorkerGroup
        What the workers are and where they may be; by default workers of one thread, anywhere.
    transport : Transport
        How workers reach the scheduler.
    owns_service : bool
        Whether `service` has no other jobs and ends with these.

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
        budget: Budget = DEFAULT_BUDGET,
        groups: Sequence[WorkerGroup] = (),
        transport: Transport = LOCAL,
        owns_service: bool = False,
    ) -> None:
        if workers < 1 and transport.in_file:
            raise ConfigurationError(f"A cluster needs at least one worker, not workers={workers}; try workers=2.")
        self.local = LocalJobs()
        self.service: JobService = self.local if service is None else service
        self.failure: CoffeaDiracError | None = None
        self.transport = transport
        self._owns_service = owns_service
        self._stop, self._wake = threading.Event(), threading.Event()
        self.losses = Losses(budget)
        self.roster = Roster(
            groups or [WorkerGroup(maximum=sys.maxsize)],
            workers,
            self.losses,
            leave_s=0.0 if self.service is self.local else LEAVE_S,
            changed=self._wake.set,
        )
        self._recipe = Recipe(transport, tuple(imports), budget.start_timeout_s)
        self._budget = budget
        self._scheduler = ""
        self._contact = Path()
        self._address = ""
        self._silent_s: float | None = None
        self._next_look_s = 0.0
        self._refused: CoffeaDiracError | None = None
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    # -- from outside; nothing here asks the job service, but for `start` of workers of this machine

    def start(self) -> None:
        """Submit the scheduler and the workers, and watch over them; returns before they are up."""
        with self._lock:
            if self._scheduler:
                return
            # By its path: `-m` would first import the package, and with it coffea, which a scheduler never needs.
            script = str(Path(__file__).with_name("start_scheduler.py"))
            arguments = (script, "contact", self.transport.host, str(self.transport.port))
            (self._scheduler,) = self.local.submit([Job(arguments)])
            self._contact = self.local.session(self._scheduler) / "contact"
            if self.transport.in_file:
                self._submit_missing()
            # After LocalJobs registered its own: the last registered runs first, and must not see jobs as lost.
            atexit.register(self.close)
        self._thread = threading.Thread(target=self._watch, name="cluster-jobs", daemon=True)
        self._thread.start()

    def wait_for_address(self, timeout_s: float) -> str:
        """Return the scheduler's address, as soon as it answers.

        Raises
        ------
        JobServiceError
            The scheduler has ended, or did not answer in time, or no worker can be started.
        """
        deadline = time.monotonic() + timeout_s
        while not self._find_address():
            self.check()
            if self._stop.is_set():
                raise JobServiceError("The cluster was closed before its scheduler answered.")
            if time.monotonic() > deadline:
                raise JobServiceError(
                    f"The scheduler did not answer within {timeout_s:.0f} s; a very busy machine? It said:\n"
                    + tail(self.local.logs(self._scheduler))
                )
            self._stop.wait(0.01)
        self.check()
        return self._address

    def _find_address(self) -> str:
        if not self._address and self._contact.exists():
            self._address = self._contact.read_text()
        return self._address

    def check(self) -> None:
        """Raise what stopped the replacing of workers, if anything did.

        Raises
        ------
        CoffeaDiracError
            Workers cannot be started or are lost too often, or the scheduler has ended.
        """
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """End all jobs; a second call, or a call in a forked child, does nothing."""
        if os.getpid() != self._owner:
            return
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)
        with self._lock:
            if not self._scheduler:
                return
            workers = self.roster.clear()
            self._scheduler = ""
        try:
            self._end(workers)
        finally:
            self.local.close()
        atexit.unregister(self.close)

    def _end(self, workers: Sequence[WorkerJob]) -> None:
        """End worker jobs, and with a service of our own also those that it does not know to have arrived."""
        service: Any = self.service
        try:
            if service is not self.local:
                self._wait_for_leaving(workers)
            service.close() if self._owns_service else service.kill([worker.job_id for worker in workers])
        except CoffeaDiracError as error:
            logger.warning("Jobs of this cluster may be left, and are killed as soon as that is possible: %s", error)
            if self._owns_service:
                service.abandon()

    def _wait_for_leaving(self, workers: Sequence[WorkerJob]) -> None:
        """Kill what waits at once; what runs has some time to see that the scheduler has gone."""
        deadline = time.monotonic() + LEAVE_S
        alive = [worker.job_id for worker in workers] if any(worker.joined for worker in workers) else []
        while alive and time.monotonic() < deadline:
            status = self.service.status(alive)
            self.service.kill([job_id for job_id in alive if status[job_id] == "waiting"])
            alive = [job_id for job_id in alive if status[job_id] == "running"]
            time.sleep(CHECK_S if alive else 0)

    # -- the thread that asks the job service

    def _watch(self) -> None:
        while not self._stop.is_set() and self.failure is None:
            try:
                self._step()
                self._silent_s = None
            except JobServiceUnreachableError as error:
                self._bear(error)
            except CoffeaDiracError as error:
                self._give_up(error)
            except Exception as error:
                self.failure = JobServiceError(f"The cluster's jobs are no longer watched over: {error!r}")
                raise
            self._wake.wait(CHECK_S)
            self._wake.clear()

    def _step(self) -> None:
        self._look_at_scheduler()
        self._end_leaving()
        now = time.monotonic()
        if now >= self._next_look_s:
            self._look()
            self._next_look_s = now + getattr(self.service, "poll_s", CHECK_S)
        if self._refused is None and (self.transport.in_file or self._find_address()):
            self._submit_missing()
        elif self._refused is not None and not self.roster.has_joined:
            raise self._refused

    def _bear(self, error: JobServiceUnreachableError) -> None:
        """Go on without the job service while there are workers; they do not need it."""
        now = time.monotonic()
        if self._silent_s is None:
            self._silent_s = now
            logger.warning("%s Workers that are up go on; it is asked again.", error)
        elif now > self._silent_s + SILENCE_S and not self.roster.has_joined:
            self._give_up(error)

    def _give_up(self, error: CoffeaDiracError) -> None:
        """Start no more workers; while some are up and their scheduler lives, that does not end what they do."""
        if self._stop.is_set():
            return
        scheduler_lives = self.local.status([self._scheduler])[self._scheduler] == "running"
        if scheduler_lives and self.roster.has_joined and not isinstance(error, ExhaustedError):
            if self._refused is None:
                logger.error("No more workers are started, those that are up go on: %s", error)
            self._refused = error
            return
        self.failure = error
        logger.error("%s", error)

    def _look_at_scheduler(self) -> None:
        if self.local.status([self._scheduler])[self._scheduler] != "running":
            what = "has ended, and with it what its tasks knew of each other; start a new cluster"
            raise JobServiceError(
                f"The cluster's scheduler {what if self._find_address() else 'could not be started'}. Its last words:\n"
                + tail(self.local.logs(self._scheduler))
            )

    def _end_leaving(self) -> None:
        if due := self.roster.due():
            self.service.kill([worker.job_id for worker in due])
            for worker in due:
                self.roster.has_left(worker)

    def _look(self) -> None:
        workers, leaving = self.roster.worker_jobs, self.roster.leaving
        known = [*workers, *leaving]
        facts = self.service.describe([worker.job_id for worker in known]) if known else {}
        for worker in known:
            worker.learn(facts[worker.job_id])
        for worker in leaving:
            if worker.has_ended:
                self.roster.has_left(worker)
        for worker in workers:
            if worker.has_ended or worker.is_late(self._budget.start_timeout_s):
                self._lose(worker)

    def _lose(self, worker: WorkerJob) -> None:
        is_late = not worker.has_ended
        if is_late:
            self.service.kill([worker.job_id])
        if not self.roster.lose(worker):
            return  # it was let go meanwhile
        words = tail(self.service.logs(worker.job_id))
        if self.losses.count(worker, words, is_late=is_late):
            self.roster.ban(worker.place)

    def _submit_missing(self) -> None:
        workers = self.roster.missing()
        if not workers or self._stop.is_set():
            return
        ids = self.service.submit([self._job(worker) for worker in workers])
        if self._stop.is_set():  # closed meanwhile, which could not know these
            self.service.kill(ids)
            return
        self.roster.enter(workers, ids)

    def _job(self, worker: WorkerJob) -> Job:
        return self._recipe.job(worker, str(self._contact), self._address)

    def preview(self) -> list[Job]:
        """Return the job that a worker of each place would be."""
        return [self._job(WorkerJob(place, f"{place.group.name}-0")) for place in self.roster.places.values()]
