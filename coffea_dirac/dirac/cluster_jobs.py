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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.dirac.losses import DEFAULT_BUDGET, Budget, ExhaustedError, Losses, tail
from coffea_dirac.dirac.places import Place, WorkerGroup, spread
from coffea_dirac.dirac.recipe import Recipe
from coffea_dirac.dirac.transport import LOCAL, Transport
from coffea_dirac.dirac.usage import Usage
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
    """Keeps a scheduler and a number of worker jobs alive, within a budget.

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
        self.groups = tuple(groups) or (WorkerGroup(maximum=sys.maxsize),)
        self.transport = transport
        self._owns_service = owns_service
        self.losses = Losses(budget)
        self.usage = Usage()
        self.places = {place.key: place for group in self.groups for place in group.places()}
        self._wanted = spread(workers, self.places.values()) if workers else dict.fromkeys(self.places, 0)
        self._recipe = Recipe(transport, tuple(imports), budget.start_timeout_s)
        self._budget = budget
        self._scheduler = ""
        self._contact = Path()
        self._address = ""
        self._workers: dict[str, WorkerJob] = {}
        self._leaving: dict[str, WorkerJob] = {}
        self._count = 0
        self._silent_s: float | None = None
        self._next_look_s = 0.0
        self._refused: CoffeaDiracError | None = None
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # -- from outside; nothing here asks the job service, but for `start` of workers of this machine

    def start(self) -> None:
        """Submit the scheduler and the workers, and watch over them; returns before they are up."""
        with self._lock:
            if self._scheduler:
                return
            # By its path: `-m` would first import the package, and with it coffea, which a scheduler never needs.
            script = (str(Path(__file__).with_name("start_scheduler.py")), "contact", self.transport.host)
            (self._scheduler,) = self.local.submit([Job(script)])
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

    @property
    def workers(self) -> dict[str, str]:
        """The workers that are up or on their way: name -> job id."""
        with self._lock:
            return {name: worker.job_id for name, worker in self._workers.items()}

    @property
    def worker_jobs(self) -> list[WorkerJob]:
        """What is known of each worker that is up or on its way."""
        with self._lock:
            return list(self._workers.values())

    @property
    def free_places(self) -> list[Place]:
        """The places that are not banned."""
        return [place for key, place in self.places.items() if key not in self.losses.banned]

    @property
    def wanted(self) -> dict[str, int]:
        """How many workers there shall be, by place."""
        with self._lock:
            return dict(self._wanted)

    def joined(self, name: str) -> None:
        """Take note that a worker has reached the scheduler."""
        with self._lock:
            worker = self._workers.get(name.partition("~")[0])
            if worker is not None:
                worker.joined = True
                self.losses.joined(worker.place.key)

    def used(self, cpu_s: Mapping[str, float]) -> None:
        """Take note of the processor time that workers have used, in seconds, by name."""
        with self._lock:
            for name, seconds in cpu_s.items():
                worker = self._workers.get(name.partition("~")[0])
                if worker is not None:
                    worker.cpu_s = seconds

    def check(self) -> None:
        """Raise what stopped the replacing of workers, if anything did.

        Raises
        ------
        CoffeaDiracError
            Workers cannot be started or are lost too often, or the scheduler has ended.
        """
        if self.failure is not None:
            raise self.failure

    def scale(self, workers: int | Mapping[str, int]) -> None:
        """Keep so many workers from now on, or so many at each place.

        Those too many that are not up yet go at once; of the others, somebody names those to `let_go`.
        """
        with self._lock:
            wanted = spread(workers, self.free_places) if isinstance(workers, int) else dict(workers)
            self._wanted = {key: wanted.get(key, 0) for key in self.places}
            for name, worker in reversed(list(self._workers.items())):
                if not worker.joined and self._surplus(worker.place.key) > 0:
                    self._leaving[name] = self._workers.pop(name)
        self._wake.set()

    @property
    def surplus(self) -> dict[str, int]:
        """How many workers are too many, by place."""
        with self._lock:
            return {key: n for key in self.places if (n := self._surplus(key)) > 0}

    def _surplus(self, key: str) -> int:
        return sum(worker.place.key == key for worker in self._workers.values()) - self._wanted.get(key, 0)

    def let_go(self, names: Iterable[str]) -> None:
        """End these workers without replacing them; those that are up have been told to leave, and get some time."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name in names if name in self._workers]:
                key = self._workers[name].place.key
                if self._surplus(key) <= 0:
                    self._wanted[key] = max(0, self._wanted[key] - 1)
                worker = self._leaving[name] = self._workers.pop(name)
                worker.leaves_s = now + LEAVE_S if worker.joined and self.service is not self.local else now
        self._wake.set()

    def distrust(self, name: str, why: str) -> None:
        """End a worker that is no good and start another one, elsewhere once its place has had too many of them."""
        with self._lock:
            worker = self._workers.pop(name.partition("~")[0], None)
            if worker is None:
                return
            self._leaving[worker.name] = worker
            others = [place for place in self.free_places if place.group is worker.place.group]
            if self.losses.distrust(worker, why, is_only=others == [worker.place]):
                self._ban(worker.place)
        self._wake.set()

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
            workers = [*self._workers.values(), *self._leaving.values()]
            for worker in workers:
                self.usage.end(worker)
            self._workers.clear()
            self._leaving.clear()
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
        elif self._refused is not None and not self._has_joined():
            raise self._refused

    def _has_joined(self) -> bool:
        with self._lock:
            return any(worker.joined for worker in self._workers.values())

    def _bear(self, error: JobServiceUnreachableError) -> None:
        """Go on without the job service while there are workers; they do not need it."""
        now = time.monotonic()
        if self._silent_s is None:
            self._silent_s = now
            logger.warning("%s Workers that are up go on; it is asked again.", error)
        elif now > self._silent_s + SILENCE_S and not self._has_joined():
            self._give_up(error)

    def _give_up(self, error: CoffeaDiracError) -> None:
        """Start no more workers; while some are up and their scheduler lives, that does not end what they do."""
        if self._stop.is_set():
            return
        scheduler_lives = self.local.status([self._scheduler])[self._scheduler] == "running"
        if scheduler_lives and self._has_joined() and not isinstance(error, ExhaustedError):
            if self._refused is None:
                logger.error("No more workers are started, those that are up go on: %s", error)
            self._refused = error
            return
        self.failure = error
        logger.error("%s", error)

    def _look_at_scheduler(self) -> None:
        if self.local.status([self._scheduler])[self._scheduler] != "running":
            raise JobServiceError(
                "The cluster's scheduler has ended, and with it what its tasks knew of each other; start a new "
                "cluster. Its last words:\n" + tail(self.local.logs(self._scheduler))
            )

    def _end_leaving(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = {name: worker for name, worker in self._leaving.items() if worker.leaves_s <= now}
        if due:
            self.service.kill([worker.job_id for worker in due.values()])
            with self._lock:
                for name in due:
                    self._has_left(name)

    def _look(self) -> None:
        with self._lock:
            workers = dict(self._workers)
            leaving = dict(self._leaving)
        known = {**workers, **leaving}
        facts = self.service.describe([worker.job_id for worker in known.values()]) if known else {}
        for name, worker in known.items():
            worker.learn(facts[worker.job_id])
            has_ended = worker.facts.status in ("done", "failed", "killed")
            if name in leaving:
                if has_ended:
                    with self._lock:
                        self._has_left(name)
            elif has_ended or worker.is_late(self._budget.start_timeout_s):
                self._lose(name, worker, is_late=not has_ended)

    def _has_left(self, name: str) -> None:
        worker = self._leaving.pop(name, None)
        if worker is not None:
            self.usage.end(worker)

    def _lose(self, name: str, worker: WorkerJob, *, is_late: bool) -> None:
        if is_late:
            self.service.kill([worker.job_id])
        with self._lock:
            if self._workers.pop(name, None) is None:
                return  # it was let go meanwhile
            self.usage.end(worker, is_lost=worker.facts.status != "done")
        words = tail(self.service.logs(worker.job_id))
        if self.losses.count(worker, words, is_late=is_late):
            self._ban(worker.place)

    def _ban(self, place: Place) -> None:
        """Move what was wanted at a place elsewhere.

        Raises
        ------
        ExhaustedError
            There is no other.
        """
        with self._lock:
            free = [other for other in self.free_places if other.group is place.group]
            if not free:
                raise self.losses.exhausted(place.key)
            total = sum(self._wanted[p.key] for p in free) + self._wanted[place.key]
            self._wanted |= {place.key: 0, **spread(total, free)}

    def _submit_missing(self) -> None:
        with self._lock:
            jobs: dict[str, WorkerJob] = {}
            for key, place in self.places.items():
                for _ in range(-self._surplus(key)):
                    name = f"{place.group.name}-{self._count}"
                    jobs[name] = WorkerJob(place, name)
                    self._count += 1
        if not jobs or self._stop.is_set():
            return
        ids = self.service.submit([self._job(worker) for worker in jobs.values()])
        if self._stop.is_set():  # closed meanwhile, which could not know these
            self.service.kill(ids)
            return
        with self._lock:
            for worker, job_id in zip(jobs.values(), ids, strict=True):
                worker.job_id = job_id
            self._workers |= jobs
            for name in reversed(list(jobs)):  # fewer may be wanted by now
                if self._surplus(jobs[name].place.key) > 0:
                    self._leaving[name] = self._workers.pop(name)

    def _job(self, worker: WorkerJob) -> Job:
        return self._recipe.job(worker, str(self._contact), self._address)

    def preview(self) -> list[Job]:
        """Return the job that a worker of each place would be."""
        return [self._job(WorkerJob(place, f"{place.group.name}-0")) for place in self.places.values()]
