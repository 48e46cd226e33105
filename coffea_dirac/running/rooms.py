"""Where calls fit: the workers by site, as the scheduler knows them, and as far as they are trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from coffea_dirac.running.call import Source
from coffea_dirac.stages.resources import Resources, places


@dataclass(frozen=True)
class Room:
    """The workers of one site for one kind of call.

    Parameters
    ----------
    site : str
        By DIRAC's name; empty where nobody says.
    workers : frozenset of str
        Their addresses.
    slots : int
        How many calls they run at once.
    """

    site: str
    workers: frozenset[str]
    slots: int


class Rooms:
    """The workers of a client.

    Parameters
    ----------
    source : Source
        What calls may need, and who is not trusted.
    may_come : callable
        Whether there may be workers with some resources later.

    Examples
    --------
    >>> rooms = Rooms(Source(lambda offer: None, distrusted={"tcp://c": ""}), lambda resources: False)
    >>> rooms.workers = {
    ...     "tcp://a": {"nthreads": 2, "site": "LCG.A.uk"},
    ...     "tcp://b": {"nthreads": 1, "site": "LCG.B.uk"},
    ...     "tcp://c": {"nthreads": 1, "site": "LCG.B.uk"},
    ... }
    >>> [(room.site, room.slots) for room in rooms.of(())]
    [('LCG.A.uk', 2), ('LCG.B.uk', 1)]
    """

    def __init__(self, source: Source, may_come: Callable[[Resources], bool]) -> None:
        self._source, self._may_come = source, may_come
        self._workers: Mapping[str, Mapping[str, Any]] = {}
        self._distrusted: frozenset[str] = frozenset()
        self._found: dict[Resources, tuple[Room, ...]] = {}
        self._trusted: Mapping[str, Mapping[str, Any]] = {}
        self._nodes: frozenset[str] = frozenset()

    @property
    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Address -> what the scheduler says of a worker."""
        return self._workers

    @workers.setter
    def workers(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        self._workers = workers
        self._sort()

    def _sort(self) -> None:
        self._distrusted = frozenset(self._source.distrusted)
        trusted = {address: worker for address, worker in self._workers.items() if address not in self._distrusted}
        self._trusted, self._found = trusted or self._workers, {}
        self._nodes = frozenset(_node(address, worker) for address, worker in self._trusted.items())

    @property
    def trusted(self) -> Mapping[str, Mapping[str, Any]]:
        """The workers that get calls; without any other, also those that are not trusted."""
        if self._source.distrusted.keys() != self._distrusted:
            self._sort()
        return self._trusted

    @property
    def are_on_several_nodes(self) -> bool:
        """Whether what goes wrong at one of the trusted workers may go right at another."""
        return bool(self.trusted) and len(self._nodes) > 1

    def of(self, resources: Resources) -> tuple[Room, ...]:
        """Return the rooms for calls that need `resources`; one for a worker that may come, if there is none."""
        trusted = self.trusted
        if resources not in self._found:
            self._found[resources] = self._look(trusted, resources)
        return self._found[resources]

    def _look(self, trusted: Mapping[str, Mapping[str, Any]], resources: Resources) -> tuple[Room, ...]:
        by_site: dict[str, dict[str, int]] = {}
        for address, n in places(trusted, self._source.kinds, resources).items():
            # What needs resources has few workers to choose from: where its file lies does not matter.
            site = "" if resources else str(trusted[address].get("site") or "")
            by_site.setdefault(site, {})[address] = n
        found = tuple(Room(site, frozenset(here), sum(here.values())) for site, here in by_site.items())
        if any(room.slots for room in found):
            return found
        return (Room("", frozenset(), 1),) if not resources or self._may_come(resources) else ()

    def bound(self, resources: Resources) -> Set[str]:
        """Return the workers that calls must name, over all rooms; none if any worker will do."""
        rooms = self.of(resources)
        if resources or (len(rooms) < 2 and not self._source.kinds and not self._source.distrusted):
            return frozenset()
        return frozenset().union(*(room.workers for room in rooms))

    def has_peer(self, address: str, resources: Resources) -> bool:
        """Whether a trusted worker on another node than this one may run calls that need `resources`.

        Jobs at sites are nodes of their own; workers of other clusters are on the same node if they have the same host.
        """
        here, others = _node(address, self._workers.get(address, {})), (room.workers for room in self.of(resources))
        return any(_node(other, self._workers[other]) != here for workers in others for other in workers)


def _node(address: str, worker: Mapping[str, Any]) -> str:
    return address if worker.get("site") else str(worker.get("host", address))
