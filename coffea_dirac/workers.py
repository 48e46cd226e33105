"""Where work runs: a client's workers, a cluster's, processes of this machine, or this process.

Nothing is started before it is needed: a run that finds everything in the cache starts no worker.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from coffea_dirac.errors import ConfigurationError, JobServiceError

# How long a run waits for the first worker, and without any worker left, before it stops and says so.
NO_WORKER_DEADLINE_S = 300.0
_TICK_S = 1.0


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
        from coffea_dirac.embedded import default_worker_count

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
            from coffea_dirac.embedded import default_client, default_worker_count

            wanted = self._n or default_worker_count()
            return default_client(min(wanted, at_most or wanted))
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
        function: Callable[..., Any],
        shared: Any,
        next_arguments: Callable[[int], tuple[Any, ...] | None],
        *,
        at_most: int | None = None,
    ) -> Iterator[Any]:
        """Run ``function(shared, *arguments)`` at the workers and yield results as they come.

        Parameters
        ----------
        function : callable
            Importable at the workers.
        shared : object
            First argument of every call, shipped to each worker once.
        next_arguments : callable
            Number of slots -> arguments of the next call, None when there is nothing left; called whenever a slot
            gets free.
        at_most : int, optional
            How many calls there will be at most; so many workers are started, not more.
        """
        if self.inline:
            while (arguments := next_arguments(1)) is not None:
                yield function(shared, *arguments)
            return
        client = self.client(at_most)
        yield from _Stream(client, function, shared, next_arguments).results()


def _client_of(cluster: Any) -> Any:
    from distributed import Client

    return Client(cluster, set_as_default=False)


class _Stream:
    """A window of tasks in flight; every future is released as soon as its result is here."""

    def __init__(self, client: Any, function: Any, shared: Any, next_arguments: Any) -> None:
        self._client, self._function, self._next = client, function, next_arguments
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flying: set[Any] = set()
        self._name = f"coffea_dirac-{uuid.uuid4().hex[:12]}"
        self._n = 0
        self._slots, self._looked, self._last_worker = 1, float("-inf"), time.monotonic()
        self._shared = client.submit(_same, shared, key=f"{self._name}-shared", pure=False)

    def results(self) -> Iterator[Any]:
        from coffea_dirac.dispatch import WINDOW

        try:
            exhausted = False
            while True:
                self._look_at_workers()
                while not exhausted and len(self._flying) < self._slots * WINDOW:
                    exhausted = not self._submit()
                if not self._flying:
                    return
                future = self._wait()
                self._flying.discard(future)
                result = self._result(future)
                future.release()
                yield result
        finally:
            if self._flying:
                self._client.cancel(list(self._flying))
            self._shared.release()

    def _result(self, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise JobServiceError(
                f"workers died again and again while they did the same work ({error}). Probably a work item needs more "
                "memory than a worker has: use a smaller chunksize, or fewer threads for each worker. What is finished "
                "is kept."
            ) from error

    def _submit(self) -> bool:
        arguments = self._next(self._slots)
        if arguments is None:
            return False
        self._n += 1
        # Earlier work first: the merge can then begin at the front.
        future = self._client.submit(
            self._function, self._shared, *arguments, key=f"{self._name}-{self._n}", pure=False, priority=-self._n
        )
        self._flying.add(future)
        future.add_done_callback(self._done.put)
        return True

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
                return self._done.get(timeout=_TICK_S)
            except queue.Empty:
                if self._client.status not in ("running", "connecting"):
                    raise JobServiceError(
                        f"the client is {self._client.status}: the scheduler has gone; run again, what is kept is "
                        "loaded"
                    ) from None

    def _look_at_workers(self) -> None:
        """Count the slots again, as workers come and go; at most once a tick, since it asks the scheduler."""
        now = time.monotonic()
        if now < self._looked + _TICK_S / 2:
            return
        self._looked = now
        check = getattr(self._client.cluster, "check", None)
        if check is not None:
            check()
        threads = sum(self._client.nthreads().values())
        if threads:
            self._slots, self._last_worker = threads, now
        elif now > self._last_worker + NO_WORKER_DEADLINE_S:
            raise JobServiceError(
                f"no worker has been there for {NO_WORKER_DEADLINE_S:.0f} s: all were lost and none came again; run "
                "again, what is kept is loaded"
            )


def _same(value: Any) -> Any:
    return value
