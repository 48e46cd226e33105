"""(free slots, pending work) -> assignments: pure functions that say which work items go together and when.

A bundle is a run of neighbouring work items of one file.  While the cost of an item is unknown bundles hold one item;
then they hold about `BUNDLE_SECONDS` of work, and less towards the end so that all slots finish together, but not
less than `LEAST_SECONDS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

BUNDLE_SECONDS = 15.0
# Each bundle costs some 50 ms of its own: so much work at least, if that is known.
LEAST_SECONDS = 0.2
WINDOW = 2


@dataclass
class Pending:
    """Work items that wait, in fileset order, as runs of one file each; `singles` come last, one by one.

    Examples
    --------
    >>> pending = Pending.of([(0, "a", "k0"), (1, "a", "k1"), (2, "b", "k2")], file_of=lambda item: item)
    >>> [len(pending.take(slots=1, seconds_per_item=1.0)) for _ in range(2)], len(pending)
    ([1, 1], 1)
    """

    runs: deque[deque[tuple[int, Any, str]]] = field(default_factory=deque)
    singles: deque[tuple[int, Any, str]] = field(default_factory=deque)
    _n_in_runs: int = 0

    @classmethod
    def of(cls, items: Iterable[tuple[int, Any, str]], *, file_of: Any) -> Pending:
        """Return pending work from (position, item, key) triples; `file_of` names the file of an item."""
        runs = deque(deque(run) for _, run in groupby(items, key=lambda triple: file_of(triple[1])))
        return cls(runs, _n_in_runs=sum(map(len, runs)))

    def __len__(self) -> int:
        return self._n_in_runs + len(self.singles)

    def add(self, triple: tuple[int, Any, str]) -> None:
        """Put one work item behind all others, in a bundle of its own."""
        self.singles.append(triple)

    def join(self, triple: tuple[int, Any, str], *, file_of: Callable[[Any], Any]) -> None:
        """Put one work item with those of the same file, if they came just before."""
        if self.runs and file_of(self.runs[-1][-1][1]) == file_of(triple[1]):
            self.runs[-1].append(triple)
        else:
            self.runs.append(deque([triple]))
        self._n_in_runs += 1

    def take(
        self, *, slots: int, seconds_per_item: float | None, at_most: int | None = None
    ) -> list[tuple[int, Any, str]]:
        """Remove and return the next bundle.

        Parameters
        ----------
        slots : int
            Threads that work on this run.
        seconds_per_item : float or None
            Seconds a work item takes, None while that is unknown.
        at_most : int, optional
            How many work items a bundle may hold.
        """
        if not self.runs:
            return [self.singles.popleft()]
        run = self.runs[0]
        n = min(len(run), bundle_size(self._n_in_runs, slots=slots, seconds_per_item=seconds_per_item))
        n = n if at_most is None else max(1, min(n, at_most))
        bundle = [run.popleft() for _ in range(n)]
        if not run:
            self.runs.popleft()
        self._n_in_runs -= n
        return bundle


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
