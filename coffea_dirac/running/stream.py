"""Calls on their way: a window of tasks for the workers of each site, and what comes back from them."""

from __future__ import annotations

import queue
import time
import uuid
from collections import Counter
from collections.abc import Generator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from coffea_dirac.dirac.start_scheduler import MEMORY_TOPIC, PREFIX, add_teller, is_bundle
from coffea_dirac.errors import JobServiceError
from coffea_dirac.running.call import Arrival, Call, Lost, Source
from coffea_dirac.running.dispatch import WINDOW, Offer
from coffea_dirac.running.rooms import Rooms
from coffea_dirac.stages.resources import Resources, is_covered
from coffea_dirac.worker.sealed import opened, run_sealed, sealed

# How long a run waits for the first worker, and without any worker left, before it stops and says so.
NO_WORKER_DEADLINE_S = 300.0
# How long a run that has nothing else to do waits for a worker that has what a stage needs.
FITTING_DEADLINE_S = 10.0
_TICK_S = 1.0
RESENT_AT_MOST = 10


@dataclass(frozen=True, eq=False)
class _Flight:
    """A call at the workers of a site; `bound` are those that it may go to; if that is any, it was meant for one."""

    call: Call
    future: Any
    site: str
    bound: Set[str]
    meant_for: str


class Stream:
    """A window of tasks in flight; every future is released as soon as its result is here.

    Parameters
    ----------
    client : distributed.Client
        Whose workers.
    shared : object
        First argument of every call, shipped to each worker once.
    source : Source
        Where calls come from.
    """

    def __init__(self, client: Any, shared: Any, source: Source) -> None:
        self._client, self._source = client, source
        self._rooms = Rooms(source, self._may_come)
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flights: dict[Any, _Flight] = {}
        self._n_at: Counter[tuple[str, Resources]] = Counter()
        self._n_meant_for: Counter[str] = Counter()
        self._name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self._n = 0
        self._last_fitting: dict[Resources, float] = {}
        self._looked, self._last_worker = float("-inf"), time.monotonic()
        self._memory: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()
        self._value, self._shared, self._resent = shared, self._send(shared), 0
        self._tells_each = _tells_each_death(client)
        self._deadline_s = getattr(client.cluster, "no_worker_deadline_s", NO_WORKER_DEADLINE_S)

    def _send(self, value: Any) -> Any:
        return self._client.submit(opened, sealed(value), key=f"{self._name}-shared{self._n}", pure=False)

    def results(self) -> Generator[Arrival]:
        """Yield what comes of each call as it comes.

        Raises
        ------
        JobServiceError
            The scheduler has gone, workers cannot be started, or none was there for too long.
        """
        try:
            while True:
                self._look_at_workers()
                for resources in ((), *self._source.waiting_for()):
                    self._fill(resources)
                if self._flights:
                    if (arrival := self._next()) is not None:
                        yield arrival
                elif lacking := self._source.waiting_for():
                    self._wait_for_fitting(lacking)
                else:
                    return
        finally:
            if self._flights:
                self._client.cancel(list(self._flights))
            self._shared.release()

    # ---------------------------------------------------------------- what goes out

    def _may_come(self, resources: Resources) -> bool:
        """Whether the cluster has a group of workers with `resources`: it starts one when it sees a task for it."""
        roster = getattr(getattr(self._client.cluster, "jobs", None), "roster", None)
        groups = roster.groups if roster is not None else ()
        return any(is_covered(resources, group.resources) for group in groups)

    def _fill(self, resources: Resources) -> None:
        rooms = self._rooms.of(resources)
        slots = sum(room.slots for room in rooms)
        staffed = frozenset(room.site for room in rooms if room.site)
        for depth in range(1, WINDOW + 1):
            for room in rooms:
                while (flying := self._n_at[room.site, resources]) < room.slots * depth:
                    is_free = flying < room.slots
                    offer = Offer(
                        slots,
                        not self._flights,
                        resources,
                        room.site,
                        is_free,
                        staffed,
                        self._rooms.are_on_several_nodes,
                    )
                    call = self._source.next_call(offer)
                    if call is None or not self._fly(call, room.site):
                        break

    def _fly(self, call: Call, site: str = "", *, is_resent: bool = False) -> bool:
        """Send a call to the workers of a site, or to any if there are none there; return whether it went."""
        bound = self._rooms.bound(call.resources)
        if bound:
            here = (room.workers for room in self._rooms.of(call.resources) if room.site == site)
            bound = next(here, bound) or bound
        if call.copy_of is not None and (twins := [f for f in self._flights.values() if f.call.is_like(call)]):
            bound = self._elsewhere(twins, bound)
            if not bound:
                return False
        meant_for = "" if bound or call.resources else self._least_busy()
        workers = sorted(bound) if bound else [meant_for] if meant_for else None
        self._n += 1
        # Earlier work first: the merge can then begin at the front.
        future = self._client.submit(
            run_sealed,
            self._shared,
            sealed(call.function, call.arguments),
            is_resent=is_resent or call.copy_of is not None,
            key=f"{self._name}-{self._n}",
            pure=False,
            priority=-self._n,
            resources=dict(call.resources) or None,
            workers=workers,
            allow_other_workers=bool(meant_for),
        )
        self._flights[future] = _Flight(call, future, site, bound, meant_for)
        self._n_at[site, call.resources] += 1
        self._n_meant_for[meant_for] += 1
        future.add_done_callback(self._done.put)
        return True

    def _least_busy(self) -> str:
        """Return the worker with the fewest calls for each of its threads.

        dask would choose the one that has the shared argument already, however busy, until another steals from it.
        """
        workers = {address: worker["nthreads"] for address, worker in self._rooms.trusted.items() if worker["nthreads"]}
        return min(workers, key=lambda address: self._n_meant_for[address] / workers[address], default="")

    def _elsewhere(self, twins: Sequence[_Flight], bound: Set[str]) -> Set[str]:
        """Return the workers that have none of some calls."""
        keys = {flight.future.key for flight in twins}
        has_it = {address for address, tasks in self._client.processing().items() if keys.intersection(tasks)}
        return (bound or frozenset(self._rooms.trusted)) - has_it

    def _land(self, future: Any) -> _Flight:
        flight = self._flights.pop(future)
        self._n_at[flight.site, flight.call.resources] -= 1
        self._n_meant_for[flight.meant_for] -= 1
        return flight

    def _wait_for_fitting(self, lacking: Sequence[Resources]) -> None:
        """Wait for a worker that has what calls wait for; say so to whom they belong if none comes."""
        deadline = time.monotonic() + FITTING_DEADLINE_S
        while not any(map(self._rooms.of, lacking)):
            if time.monotonic() > deadline:
                for resources in lacking:
                    self._source.next_call(Offer(0, is_idle=True, resources=resources))
                return
            time.sleep(_TICK_S / 4)
            self._look_at_workers()

    # ---------------------------------------------------------------- what comes in

    def _next(self) -> Arrival | None:
        """Return what came next, None if nothing did within a tick or if it does not count."""
        try:
            future = self._done.get(timeout=_TICK_S)
        except queue.Empty:
            if self._client.status not in ("running", "connecting"):
                raise JobServiceError(
                    f"the client is {self._client.status}: the scheduler has gone; run again, what is kept is loaded"
                ) from None
            return None
        if future not in self._flights:
            return None  # it was taken back
        flight = self._land(future)
        arrival = self._arrival(flight)
        future.release()
        copies = [other.future for other in self._flights.values() if other.call.is_like(flight.call)]
        if arrival is None or (copies and isinstance(arrival.result, Lost)):
            return None
        for copy in copies:
            self._land(copy)
        if copies:
            self._client.cancel(copies)
        return arrival

    def _arrival(self, flight: _Flight) -> Arrival | None:
        """Return what a call returned, or a `Lost`; None if the call was sent again."""
        from distributed import CancelledError, KilledWorker

        call = flight.call
        try:
            worker, result = flight.future.result()
        except KilledWorker as error:
            if not is_bundle(error.task):
                self._send_again(flight)
                return None
            deaths = 1 if self._tells_each else error.allowed_failures + 1
            worker = str(getattr(error.last_worker, "address", ""))
            return Arrival(call, Lost(deaths, worker, *self._memory_of(worker)))
        except CancelledError as error:
            raise JobServiceError(
                f"the scheduler has gone, or somebody cancelled the tasks of this run ({error}); run again, what is "
                "kept is loaded"
            ) from error
        return Arrival(call, result, worker if self._rooms.has_peer(worker, call.resources) else "")

    def _memory_of(self, worker: str) -> tuple[int, int]:
        """Return the bytes a dead worker used and could use: what it said when it gave up, or when it was last seen."""
        for _, event in reversed(self._client.get_events(MEMORY_TOPIC)):
            if event.get("worker") == worker:
                return int(event["memory"]), int(event["memory_limit"])
        return self._memory.get(worker, (0, 0))

    def _send_again(self, flight: _Flight) -> None:
        """Send the shared argument once more: the worker that was about to get it died."""
        self._resent += 1
        if self._resent > RESENT_AT_MOST:
            raise JobServiceError(
                f"workers died {RESENT_AT_MOST} times before they got their first task: look at their logs; probably "
                "they have too little memory to import the analysis. What is finished is kept."
            )
        self._n += 1
        self._shared = self._send(self._value)
        self._fly(flight.call, flight.site, is_resent=True)

    # ---------------------------------------------------------------- the workers

    def _look_at_workers(self) -> None:
        """Count slots and note memory again, as workers come and go; at most once a tick: it asks the scheduler."""
        now = time.monotonic()
        self._tell_distrusted()
        if now < self._looked + _TICK_S / 2:
            return
        self._looked = now
        if hasattr(self._client.cluster, "tell_waiting"):
            self._client.cluster.check()
            self._client.cluster.tell_waiting()
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        for address, worker in workers.items():
            self._memory[address] = (int(worker["metrics"].get("memory", 0)), int(worker.get("memory_limit") or 0))
        self._rooms.workers = workers
        for flight in [f for f in self._flights.values() if f.bound and f.bound.isdisjoint(workers)]:
            if not flight.future.done():
                # All workers it was meant for have gone, and others would not get it.
                self._land(flight.future)
                self._fly(flight.call, is_resent=True)
                self._client.cancel(flight.future)
        self._look_at_fitting(now)
        if any(worker["nthreads"] for worker in workers.values()):
            self._last_worker = now
        elif now > self._last_worker + self._deadline_s:
            raise JobServiceError(
                f"no worker has been there for {self._deadline_s:.0f} s: all were lost and none came again; run "
                "again, what is kept is loaded"
            )

    def _tell_distrusted(self) -> None:
        """Let the cluster know which workers are no good: it replaces them."""
        for address, why in list(self._source.distrusted.items()):
            worker = self._rooms.workers.get(address)
            if why and worker is not None and address not in self._told:
                self._told.add(address)
                if hasattr(self._client.cluster, "distrust"):
                    self._client.cluster.distrust(worker["name"], why)

    def _look_at_fitting(self, now: float) -> None:
        for resources in {f.call.resources for f in self._flights.values() if f.call.resources}:
            if any(room.workers for room in self._rooms.of(resources)):
                self._last_fitting[resources] = now
            elif now > self._last_fitting.setdefault(resources, now) + self._deadline_s:
                cluster = self._client.cluster
                waiting = cluster.waiting() if hasattr(cluster, "waiting") else ""
                raise JobServiceError(
                    f"no worker with {dict(resources)}, which a stage needs, has been there for {self._deadline_s:.0f} "
                    f"s; run again, what is kept is loaded.{waiting}"
                )


def _tells_each_death(client: Any) -> bool:
    """Whether the scheduler tells each death of a worker under a task of ours; else only the last one it allows.

    Our own schedulers do; another one is asked to, which concerns our tasks only.
    """
    if getattr(client.cluster, "tells_each_death", False):
        return True
    try:
        client.run_on_scheduler(add_teller)
    except Exception:  # noqa: BLE001 - this package is not installed there, or it runs no code for clients
        return False
    return True
