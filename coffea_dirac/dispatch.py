"""(free slots, pending work) -> assignments: pure functions that say which work items go together and when.

A bundle is a run of neighbouring work items of one file.  While the cost of an item is unknown bundles hold one item;
then
they hold about `BUNDLE_SECONDS` of work, and less towards the end so that all slots finish together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

BUNDLE_SECONDS = 15.0
WINDOW = 2


@dataclass
class Pending:
    """Work items that wait, in fileset order, as runs of one file each.

    Examples
    --------
    >>> pending = Pending.of([(0, "a", "k0"), (1, "a", "k1"), (2, "b", "k2")], file_of=lambda item: item)
    >>> [len(pending.take(slots=1, seconds_per_item=1.0)) for _ in range(2)], len(pending)
    ([1, 1], 1)
    """

    runs: deque[list[tuple[int, Any, str]]] = field(default_factory=deque)

    @classmethod
    def of(cls, items: Sequence[tuple[int, Any, str]], *, file_of: Any) -> Pending:
        """Return pending work from (position, item, key) triples; `file_of` names the file of an item."""
        return cls(deque(list(run) for _, run in groupby(items, key=lambda triple: file_of(triple[1]))))

    def __len__(self) -> int:
        return sum(len(run) for run in self.runs)

    def take(self, *, slots: int, seconds_per_item: float | None) -> list[tuple[int, Any, str]]:
        """Remove and return the next bundle.

        Parameters
        ----------
        slots : int
            Threads that work on this run.
        seconds_per_item : float or None
            Seconds a work item takes, None while that is unknown.
        """
        run = self.runs[0]
        n = bundle_size(len(self), slots=slots, seconds_per_item=seconds_per_item)
        bundle, rest = run[:n], run[n:]
        if rest:
            self.runs[0] = rest
        else:
            self.runs.popleft()
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
    by_time = int(BUNDLE_SECONDS / max(seconds_per_item, 1e-6))
    by_share = -(-pending // (slots * WINDOW * 2))
    return max(1, min(by_time, by_share))
