"""The workers of a cluster, by place: how many are wanted, those that are up or on their way, and those that leave.

Nothing here asks anybody.  Several threads may call: each method holds the lock, and waits for nothing meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from coffea_dirac.dirac.losses import Losses
from coffea_dirac.dirac.places import Place, WorkerGroup, spread
from coffea_dirac.dirac.usage import Usage
from coffea_dirac.dirac.worker_job import WorkerJob


class Roster:
    """Who is wanted, who is there, who leaves.

    Parameters
    ----------
    groups : sequence of WorkerGroup
        What the workers are and where they may be.
    workers : int
        How many are wanted at first.
    losses : Losses
        Those that were lost, and the places that are banned.
    leave_s : float
        How long a worker that is up may take to leave.
    changed : callable
        Called when there is something to be done.

    Examples
    --------
    >>> from coffea_dirac.dirac.losses import DEFAULT_BUDGET
    >>> group = WorkerGroup(sites={"LCG.A.uk": 2, "LCG.B.uk": 1})
    >>> roster = Roster([group], 3, Losses(DEFAULT_BUDGET), leave_s=0, changed=lambda: None)
    >>> new = roster.missing()
    >>> [(worker.name, worker.site) for worker in new]
    [('worker-0', 'LCG.A.uk'), ('worker-1', 'LCG.A.uk'), ('worker-2', 'LCG.B.uk')]
    >>> roster.enter(new, ["11", "12", "13"])
    >>> roster.workers
    {'worker-0': '11', 'worker-1': '12', 'worker-2': '13'}
    >>> roster.scale({"worker@LCG.A.uk": 1})
    >>> roster.workers, sorted(worker.job_id for worker in roster.due())
    ({'worker-0': '11'}, ['12', '13'])
    """

    def __init__(
        self,
        groups: Sequence[WorkerGroup],
        workers: int,
        losses: Losses,
        *,
        leave_s: float,
        changed: Callable[[], None],
    ) -> None:
        self.groups = tuple(groups)
        self.places = {place.key: place for group in self.groups for place in group.places()}
        self.losses = losses
        self.usage = Usage()
        self._leave_s, self._changed = leave_s, changed
        self._wanted = spread(workers, self.places.values()) if workers else dict.fromkeys(self.places, 0)
        self._workers: dict[str, WorkerJob] = {}
        self._leaving: dict[str, WorkerJob] = {}
        self._count = 0
        self._lock = threading.RLock()

    # -- what there is

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
    def leaving(self) -> list[WorkerJob]:
        """What is known of each worker that has been let go."""
        with self._lock:
            return list(self._leaving.values())

    @property
    def has_joined(self) -> bool:
        """Whether any worker is up."""
        with self._lock:
            return any(worker.joined for worker in self._workers.values())

    @property
    def free_places(self) -> list[Place]:
        """The places that are not banned."""
        return [place for key, place in self.places.items() if key not in self.losses.banned]

    @property
    def wanted(self) -> dict[str, int]:
        """How many workers there shall be, by place."""
        with self._lock:
            return dict(self._wanted)

    @property
    def surplus(self) -> dict[str, int]:
        """How many workers are too many, by place."""
        with self._lock:
            return {key: n for key in self.places if (n := self._surplus(key)) > 0}

    def _surplus(self, key: str) -> int:
        return sum(worker.place.key == key for worker in self._workers.values()) - self._wanted.get(key, 0)

    # -- what is said of workers; those that have come back have another name (`start_worker.run`)

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

    # -- who shall be there

    def scale(self, workers: int | Mapping[str, int]) -> None:
        """Want so many workers from now on, or so many at each place.

        Those too many that are not up yet go at once; of the others, somebody names those to `let_go`.
        """
        with self._lock:
            wanted = spread(workers, self.free_places) if isinstance(workers, int) else dict(workers)
            self._wanted = {key: wanted.get(key, 0) for key in self.places}
            self._drop_surplus(name for name, worker in self._workers.items() if not worker.joined)
        self._changed()

    def _drop_surplus(self, names: Iterable[str]) -> None:
        for name in reversed(list(names)):
            if self._surplus(self._workers[name].place.key) > 0:
                self._leaving[name] = self._workers.pop(name)

    def let_go(self, names: Iterable[str]) -> None:
        """End these workers without replacing them; those that are up have been told to leave, and get some time."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name in names if name in self._workers]:
                key = self._workers[name].place.key
                if self._surplus(key) <= 0:
                    self._wanted[key] = max(0, self._wanted[key] - 1)
                worker = self._leaving[name] = self._workers.pop(name)
                worker.leaves_s = now + self._leave_s if worker.joined else now
        self._changed()

    def distrust(self, name: str, why: str) -> None:
        """End a worker that is no good and start another one, elsewhere once its place has had too many of them."""
        with self._lock:
            worker = self._workers.pop(name.partition("~")[0], None)
            if worker is None:
                return
            self._leaving[worker.name] = worker
            others = [place for place in self.free_places if place.group is worker.place.group]
            if self.losses.distrust(worker, why, is_only=others == [worker.place]):
                self.ban(worker.place)
        self._changed()

    def ban(self, place: Place) -> None:
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

    # -- who comes and goes

    def missing(self) -> list[WorkerJob]:
        """Return workers that are wanted and not there, with new names; `enter` them once they have jobs."""
        found = []
        with self._lock:
            for key, place in self.places.items():
                for _ in range(-self._surplus(key)):
                    found.append(WorkerJob(place, f"{place.group.name}-{self._count}"))
                    self._count += 1
        return found

    def enter(self, workers: Sequence[WorkerJob], ids: Sequence[str]) -> None:
        """Enter workers that have been submitted; fewer may be wanted by now."""
        with self._lock:
            for worker, job_id in zip(workers, ids, strict=True):
                worker.job_id = job_id
                self._workers[worker.name] = worker
            self._drop_surplus(worker.name for worker in workers)

    def lose(self, worker: WorkerJob) -> bool:
        """Take a worker off that has ended by itself; return whether it was still wanted."""
        with self._lock:
            if self._workers.pop(worker.name, None) is None:
                return False
            self.usage.end(worker, is_lost=worker.facts.status != "done")
            return True

    def due(self) -> list[WorkerJob]:
        """Return those that have been let go and whose time to leave is over."""
        now = time.monotonic()
        return [worker for worker in self.leaving if worker.leaves_s <= now]

    def has_left(self, worker: WorkerJob) -> None:
        """Take off a worker that was let go, once it has ended."""
        with self._lock:
            if self._leaving.pop(worker.name, None) is not None:
                self.usage.end(worker)

    def clear(self) -> list[WorkerJob]:
        """Take everybody off, and return them."""
        with self._lock:
            everybody = [*self._workers.values(), *self._leaving.values()]
            for worker in everybody:
                self.usage.end(worker)
            self._workers.clear()
            self._leaving.clear()
            return everybody
