"""Where work runs: a client's workers, a cluster's, processes of this machine, or this process.

Nothing is started before it is needed: a run that finds everything in the cache starts no worker.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.running.call import Arrival, Source
from coffea_dirac.running.dispatch import Offer
from coffea_dirac.running.stream import NO_WORKER_DEADLINE_S, Stream


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
        if client is not None and not hasattr(client, "submit"):
            raise ConfigurationError(
                f"client is {client!r}: give a distributed.Client, as in client=Client({client!r})"
            )
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
    def may_be_elsewhere(self) -> bool:
        """Whether workers may be on machines that do not see this one's files."""
        return not self.inline and (self._client is not None or self._cluster is not None)

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

    def each(self, shared: Any, source: Source, *, at_most: int | None = None) -> Generator[Arrival]:
        """Run calls at the workers and yield what comes of each as it comes; stop when there are no more.

        Parameters
        ----------
        shared : object
            First argument of every call, shipped to each worker once.
        source : Source
            Where calls come from.
        at_most : int, optional
            How many calls there will be at most; so many workers are started, not more.
        """
        if self.inline:
            while (call := source.next_call(Offer(1, is_idle=True))) is not None:
                yield Arrival(call, call.function(shared, *call.arguments))
            return
        yield from Stream(self.client(at_most), shared, source).results()


def _client_of(cluster: Any) -> Any:
    if hasattr(cluster, "executor_client"):
        return cluster.executor_client()
    from distributed import Client

    return Client(cluster, set_as_default=False)
