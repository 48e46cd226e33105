"""Where work runs: a client's workers, a cluster's, processes of this machine, or this process.

Nothing is started before it is needed: a run that finds everything in the cache starts no worker.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Generator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from coffea_dirac.dirac.start_scheduler import MEMORY_TOPIC, PREFIX, add_teller, is_bundle
from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.running.dispatch import WINDOW
from coffea_dirac.stages.resources import Resources, is_covered, places
from coffea_dirac.worker.sealed import opened, run_sealed, sealed

# How long a run waits for the first worker, and without any worker left, before it stops and says so.
NO_WORKER_DEADLINE_S = 300.0
# How long a run that has nothing else to do waits for a worker that has what a stage needs.
FITTING_DEADLINE_S = 10.0
_TICK_S = 1.0
RESENT_AT_MOST = 10


class Workers:
    """Workers that are found or started at the first call of `client`.

    Parameters
    ----------
    client, cluster : optional
        A distributed client, or a dask cluster, of the user's.
    n : int, optional
        Processes of this machine otherwise.
    inline : bool
        Run in this process instead.
    """

    def __init__(self, client: Any, cluster: Any, n: int | None, *, inline: bool = False) -> None:
        if client is not None and getattr(client, "asynchronous", False):
            raise ConfigurationError("the client is asynchronous: make it with Client(..., asynchronous=False)")
        self._client, self._cluster, self._n = client, cluster, n
        self._of_cluster: Any = None
        self.inline = inline

    def __str__(self) -> str:
        if self.inline:
            return "this process"
        if self._client is not None or self._cluster is not None:
            return "the workers of the given " + ("client" if self._client is not None else "cluster")
        from coffea_dirac.cluster.embedded import default_worker_count

        return f"{self._n or default_worker_count()} processes of this machine"

    @property
    def given(self) -> bool:
        """Whether the user named where to work."""
        return self.inline or self._client is not None or self._cluster is not None or self._n is not None

    @property
    def are_up(self) -> bool:
        """Whether there are workers already; asking starts none."""
        if self.inline:
            return False
        client = self._client or self._of_cluster
        return client is not None and bool(client.nthreads())

    def client(self, at_most: int | None = None) -> Any:
        """Return a client with at least one worker, starting workers if none were given.

        Parameters
        ----------
        at_most : int, optional
            More workers than this would have nothing to do; counts only where workers are started.

        Raises
        ------
        JobServiceError
            No worker came within `NO_WORKER_DEADLINE_S`.
        """
        client = self._client
        if client is None and self._cluster is not None:
            client = self._of_cluster = self._of_cluster or _client_of(self._cluster)
        elif client is None:
            from coffea_dirac.cluster.embedded import default_client, default_worker_count

            wanted = self._n or default_worker_count()
            return default_client(min(wanted, at_most or wanted))
        cluster = client.cluster
        if hasattr(cluster, "ask_for"):
            cluster.ask_for(at_most or 1)
            cluster.wait_for(1, timeout=cluster.no_worker_deadline_s)
            return client
        try:
            client.wait_for_workers(1, timeout=NO_WORKER_DEADLINE_S)
        except TimeoutError as error:
            raise JobServiceError(
                f"no worker of {client!r} came within {NO_WORKER_DEADLINE_S:.0f} s. Probably its jobs still wait, or "
                "the cluster was never scaled: cluster.scale(2) starts two workers."
            ) from error
        return client

    def each(
        self,
        shared: Any,
        next_call: NextCall,
        *,
        at_most: int | None = None,
        lanes: tuple[Sequence[Resources], Callable[[], Sequence[Resources]]] = ((), tuple),
    ) -> Generator[tuple[Call, Any]]:
        """Run calls at the workers and yield each with its result as it comes; stop when there are no more.

        Parameters
        ----------
        shared : object
            First argument of every call, shipped to each worker once.
        next_call : callable
            (number of slots, whether nothing is in flight, resources) -> the next call for workers with these
            resources, None if there is none now; asked whenever a slot is free.  There is an end when it gives none
            and nothing is in flight.  No slots: there is no such worker, and none came in time.
        at_most : int, optional
            How many calls there will be at most; so many workers are started, not more.
        lanes : (sequence of Resources, callable)
            What calls may need, apart from nothing: workers that have it are left to them.  And what calls are waiting
            for now.

        Yields
        ------
        (Call, result)
            The result is a `Lost` if the workers that had the call died.
        """
        if self.inline:
            while (call := next_call(1, True, ())) is not None:
                yield call, call.function(shared, *call.arguments)
            return
        yield from _Stream(self.client(at_most), shared, next_call, *lanes).results()


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function at a worker: ``function(shared, *arguments)``; `about` is the caller's own note."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    about: Any = None
    resources: Resources = ()


NextCall = Callable[[int, bool, Resources], Call | None]


@dataclass(frozen=True)
class Lost:
    """Workers died while they had a call.

    Parameters
    ----------
    deaths : int
        How many.
    worker : str
        The address of the last.
    memory, memory_limit : int
        Bytes the last of them used when it was last heard of, and those it could use; 0 if not known.
    """

    deaths: int
    worker: str
    memory: int = 0
    memory_limit: int = 0


def _client_of(cluster: Any) -> Any:
    if hasattr(cluster, "executor_client"):
        return cluster.executor_client()
    from distributed import Client

    return Client(cluster, set_as_default=False)


class _Stream:
    """A window of tasks in flight; every future is released as soon as its result is here."""

    def __init__(
        self,
        client: Any,
        shared: Any,
        next_call: NextCall,
        kinds: Sequence[Resources] = (),
        waiting_for: Callable[[], Sequence[Resources]] = tuple,
    ) -> None:
        self._client, self._next_call = client, next_call
        self._kinds, self._waiting_for = kinds, waiting_for
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flying: dict[Any, Call] = {}
        self._bound: dict[Any, Set[str]] = {}
        self._name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self._n = 0
        self._workers: dict[str, Any] = {}
        self._capacity: dict[Resources, int] = {}
        self._last_fitting: dict[Resources, float] = {}
        self._looked, self._last_worker = float("-inf"), time.monotonic()
        self._memory: dict[str, tuple[int, int]] = {}
        self._value, self._shared, self._resent = shared, self._send(shared), 0
        self._tells_each = _tells_each_death(client)
        self._deadline_s = getattr(client.cluster, "no_worker_deadline_s", NO_WORKER_DEADLINE_S)

    def _send(self, value: Any) -> Any:
        return self._client.submit(opened, sealed(value), key=f"{self._name}-shared{self._n}", pure=False)

    def results(self) -> Generator[tuple[Call, Any]]:
        try:
            while True:
                self._look_at_workers()
                for resources in ((), *self._waiting_for()):
                    self._fill(resources)
                if not self._flying:
                    if not (lacking := self._waiting_for()):
                        return
                    self._wait_for_fitting(lacking)
                    continue
                future = self._wait()
                call = self._flying.pop(future)
                self._bound.pop(future, None)
                result = self._result(future, call)
                future.release()
                if result is not None:
                    yield call, result
        finally:
            if self._flying:
                self._client.cancel(list(self._flying))
            self._shared.release()

    def _slots(self, resources: Resources) -> int:
        """Return how many calls that need `resources` run at once; one waits for a worker that may come."""
        if resources not in self._capacity:
            found = sum(places(self._workers, self._kinds, resources).values())
            self._capacity[resources] = found or int(not resources or self._may_come(resources))
        return self._capacity[resources]

    def _may_come(self, resources: Resources) -> bool:
        """Whether the cluster has a group of workers with `resources`: it starts one when it sees a task for it."""
        groups = getattr(getattr(self._client.cluster, "jobs", None), "groups", ())
        return any(is_covered(resources, group.resources) for group in groups)

    def _fill(self, resources: Resources) -> None:
        slots = self._slots(resources)
        flying = sum(call.resources == resources for call in self._flying.values())
        while flying < slots * WINDOW:
            call = self._next_call(slots, not self._flying, resources)
            if call is None:
                return
            self._fly(call)
            flying += 1

    def _wait_for_fitting(self, lacking: Sequence[Resources]) -> None:
        """Wait for a worker that has what calls wait for; say so to whom they belong if none comes."""
        deadline = time.monotonic() + FITTING_DEADLINE_S
        while not any(map(self._slots, lacking)):
            if time.monotonic() > deadline:
                for resources in lacking:
                    self._next_call(0, True, resources)
                return
            time.sleep(_TICK_S / 4)
            self._look_at_workers()

    def _fly(self, call: Call) -> None:
        self._n += 1
        bound = frozenset(places(self._workers, self._kinds, ())) if self._kinds and not call.resources else None
        # Earlier work first: the merge can then begin at the front.
        future = self._client.submit(
            run_sealed,
            self._shared,
            sealed(call.function, call.arguments),
            key=f"{self._name}-{self._n}",
            pure=False,
            priority=-self._n,
            resources=dict(call.resources) or None,
            workers=sorted(bound) if bound else None,
        )
        self._flying[future] = call
        if bound:
            self._bound[future] = bound
        future.add_done_callback(self._done.put)

    def _result(self, future: Any, call: Call) -> Any:
        """Return what a call returned, a `Lost`, or None if the call was sent again."""
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            if not is_bundle(error.task):
                self._send_again(call)
                return None
            deaths = 1 if self._tells_each else error.allowed_failures + 1
            worker = str(getattr(error.last_worker, "address", ""))
            return Lost(deaths, worker, *self._memory_of(worker))

    def _memory_of(self, worker: str) -> tuple[int, int]:
        """Return the bytes a dead worker used and could use: what it said when it gave up, or when it was last seen."""
        for _, event in reversed(self._client.get_events(MEMORY_TOPIC)):
            if event.get("worker") == worker:
                return int(event["memory"]), int(event["memory_limit"])
        return self._memory.get(worker, (0, 0))

    def _send_again(self, call: Call) -> None:
        """Send the shared argument once more: the worker that was about to get it died."""
        self._resent += 1
        if self._resent > RESENT_AT_MOST:
            raise JobServiceError(
                f"workers died {RESENT_AT_MOST} times before they got their first task: look at their logs; probably "
                "they have too little memory to import the analysis. What is finished is kept."
            )
        self._n += 1
        self._shared = self._send(self._value)
        self._fly(call)

    def _wait(self) -> Any:
        """Return the next future that is done.

        Raises
        ------
        JobServiceError
            The scheduler has gone, workers cannot be started, or none was there for `NO_WORKER_DEADLINE_S`.
        """
        while True:
            self._look_at_workers()
            try:
                future = self._done.get(timeout=_TICK_S)
                if future in self._flying:
                    return future
                # It was taken back.
            except queue.Empty:
                if self._client.status not in ("running", "connecting"):
                    raise JobServiceError(
                        f"the client is {self._client.status}: the scheduler has gone; run again, what is kept is "
                        "loaded"
                    ) from None

    def _look_at_workers(self) -> None:
        """Count slots and note memory again, as workers come and go; at most once a tick: it asks the scheduler."""
        now = time.monotonic()
        if now < self._looked + _TICK_S / 2:
            return
        self._looked = now
        if hasattr(self._client.cluster, "tell_waiting"):
            self._client.cluster.check()
            self._client.cluster.tell_waiting()
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        for address, worker in workers.items():
            self._memory[address] = (int(worker["metrics"].get("memory", 0)), int(worker.get("memory_limit") or 0))
        self._workers, self._capacity = workers, {}
        for future in [f for f, bound in self._bound.items() if bound.isdisjoint(workers) and not f.done()]:
            # All workers it was meant for have gone, and others would not get it.
            del self._bound[future]
            self._fly(self._flying.pop(future))
            self._client.cancel(future)
        self._look_at_fitting(now)
        if any(worker["nthreads"] for worker in workers.values()):
            self._last_worker = now
        elif now > self._last_worker + self._deadline_s:
            raise JobServiceError(
                f"no worker has been there for {self._deadline_s:.0f} s: all were lost and none came again; run "
                "again, what is kept is loaded"
            )

    def _look_at_fitting(self, now: float) -> None:
        for resources in {call.resources for call in self._flying.values() if call.resources}:
            if places(self._workers, self._kinds, resources):
                self._last_fitting[resources] = now
            elif now > self._last_fitting.setdefault(resources, now) + self._deadline_s:
                raise JobServiceError(
                    f"no worker with {dict(resources)}, which a stage needs, has been there for {self._deadline_s:.0f} "
                    "s; run again, what is kept is loaded"
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
