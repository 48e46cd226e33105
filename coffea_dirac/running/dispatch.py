"""(free slots, pending work) -> assignments: pure functions that say which work items go together and when.

A bundle is a run of neighbouring work items of one file, and goes to a site that holds the file while that has room.
While the cost of an item is unknown bundles hold one item; then they hold about `BUNDLE_SECONDS` of work, and less
towards the end so that all slots finish together, but not less than `LEAST_SECONDS`; the last go to free slots only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

BUNDLE_SECONDS = 15.0
# Each bundle costs some 50 ms of its own: so much work at least, if that is known.
LEAST_SECONDS = 0.2
# The last so many seconds of work for each slot wait here for whoever is free first, and not behind slow bundles.
LAST_SECONDS = 2 * LEAST_SECONDS
WINDOW = 2


Triple = tuple[int, Any, str]
"""Position, work item, key."""
Sites = frozenset[str]
NOWHERE: Sites = frozenset()


@dataclass(frozen=True, slots=True)
class Offer:
    """Room for one more call.

    Parameters
    ----------
    slots : int
        Threads that work on this run; 0: there are none for such calls, and none will come.
    is_idle : bool
        Whether nothing is in flight: a work item that is suspected of killing workers goes out only then.
    resources : Resources
        What the workers have for it.
    site : str
        Where they are.
    is_free : bool
        Whether one of their threads has nothing to do: otherwise the call will wait there.
    staffed : frozenset of str
        The sites that have workers at all.
    has_peers : bool
        Whether there are workers on several nodes: a call that takes too long on one may be faster on another.
    """

    slots: int
    is_idle: bool = False
    resources: tuple[tuple[str, float], ...] = ()
    site: str = ""
    is_free: bool = True
    staffed: Sites = NOWHERE
    has_peers: bool = False


class Pending:
    """Work items that wait, in fileset order, as runs of one file each; some come first, and others last, one by one.

    Parameters
    ----------
    items : iterable of (position, item, key)
        They wait from the beginning.
    file_of : callable
        Names the file of an item.
    sites_of : callable
        Says at which sites the file of an item lies; nowhere in particular by default.

    Examples
    --------
    >>> pending = Pending([(0, "a", "k0"), (1, "a", "k1"), (2, "b", "k2")], file_of=lambda item: item)
    >>> [len(pending.take(Offer(1), seconds_per_item=1.0)) for _ in range(2)], len(pending)
    ([1, 1], 1)
    """

    def __init__(
        self,
        items: Iterable[Triple] = (),
        *,
        file_of: Callable[[Any], Any] = lambda item: (item.dataset, item.filename),
        sites_of: Callable[[Any], Sites] = lambda item: NOWHERE,
    ) -> None:
        self._file_of, self._sites_of = file_of, sites_of
        self._runs: dict[Sites, deque[deque[Triple]]] = {}
        self._first: deque[tuple[Triple, str]] = deque()
        self._singles: deque[Triple] = deque()
        self._last: deque[Triple] | None = None
        self._n_in_runs = 0
        for triple in items:
            self.join(triple)

    def __len__(self) -> int:
        return len(self._first) + self._n_in_runs + len(self._singles)

    def add_first(self, triple: Triple, *, failed_at: str = "") -> None:
        """Put one work item before all others, wherever its file lies, in a bundle of its own.

        Parameters
        ----------
        failed_at : str
            A site that does not get it as long as another one has workers: all of its workers may be broken.
        """
        self._first.append((triple, failed_at))

    def add(self, triple: Triple) -> None:
        """Put one work item behind all others, in a bundle of its own."""
        self._singles.append(triple)

    def join(self, triple: Triple) -> None:
        """Put one work item with those of the same file, if they came just before."""
        if self._last and self._file_of(self._last[-1][1]) == self._file_of(triple[1]):
            self._last.append(triple)
        else:
            self._last = deque([triple])
            self._runs.setdefault(self._sites_of(triple[1]), deque()).append(self._last)
        self._n_in_runs += 1

    def take(self, offer: Offer, *, seconds_per_item: float | None, at_most: int | None = None) -> list[Triple]:
        """Remove and return the next bundle for the workers of a site; nothing if what is left is not for them yet.

        They get what lies at their site, then what lies at no site that has workers.  What lies at another site that
        has workers they get only when one of them has nothing else to do: those there are busy then.  So it is with the
        last work items of all.

        Parameters
        ----------
        offer : Offer
            Who asks.
        seconds_per_item : float or None
            Seconds a work item takes, None while that is unknown.
        at_most : int, optional
            How many work items a bundle may hold.
        """
        for one in self._first:
            if not one[1] or offer.site != one[1] or offer.staffed <= {one[1]}:
                self._first.remove(one)
                return [one[0]]
        sites = self._choose(offer)
        if sites is None:
            return [self._singles.popleft()] if self._singles and not self._n_in_runs else []
        if not offer.is_free and self._n_in_runs * (seconds_per_item or BUNDLE_SECONDS) < LAST_SECONDS * offer.slots:
            return []
        run = self._runs[sites][0]
        n = min(len(run), bundle_size(self._n_in_runs, slots=offer.slots, seconds_per_item=seconds_per_item))
        n = n if at_most is None else max(1, min(n, at_most))
        bundle = [run.popleft() for _ in range(n)]
        if not run:
            self._runs[sites].popleft()
            if not self._runs[sites]:
                del self._runs[sites]
        self._n_in_runs -= n
        return bundle

    def _choose(self, offer: Offer) -> Sites | None:
        """Return from where to take: of the best kind there is, what comes first in the fileset."""

        def kind(sites: Sites) -> int:
            return 0 if offer.site in sites else 1 if sites.isdisjoint(offer.staffed) else 2

        fitting = [sites for sites in self._runs if offer.is_free or kind(sites) < 2]
        return min(fitting, key=lambda sites: (kind(sites), self._runs[sites][0][0][0]), default=None)


def bundle_size(pending: int, *, slots: int, seconds_per_item: float | None) -> int:
    """Return how many work items the next bundle should hold, at least one.

    Examples
    --------
    >>> bundle_size(200, slots=2, seconds_per_item=None), bundle_size(200, slots=2, seconds_per_item=0.01)
    (1, 25)
    """
    if seconds_per_item is None:
        return 1
    seconds = max(seconds_per_item, 1e-6)
    by_share = max(-(-pending // (slots * WINDOW * 2)), int(LEAST_SECONDS / seconds))
    return max(1, min(int(BUNDLE_SECONDS / seconds), by_share))
