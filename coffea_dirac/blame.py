"""Which work item is to blame when workers die.

A worker that dies may have been preempted, or killed by what it was asked to do.  One death says nothing, so the work
items concerned are tried again one by one, those hit twice when all else is done and with nothing beside them.  An item
is to blame once `DEATHS` workers died with it, the last time alone, and bad luck is out of the question as often as
workers died under other items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

DEATHS = 3
MOST_DEATHS = 12
BAD_LUCK = 1e-3
# Even where no other worker died, one in ten is what a bad day may bring.
LEAST_RISK = 0.1


@dataclass
class Blame:
    """Deaths of workers by work item, and how often bundles came back.

    Examples
    --------
    >>> blame = Blame()
    >>> for n in range(3):
    ...     blame.died([7], f"worker-{n}")
    >>> blame.is_to_blame(7)
    True
    >>> preempted = Blame()
    >>> for n in range(20):
    ...     preempted.died([n % 7], f"worker-{n}")
    >>> preempted.is_to_blame(0)
    False
    """

    deaths: Counter[int] = field(default_factory=Counter)
    workers: dict[int, set[str]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    landed: int = 0

    def came_back(self) -> None:
        """Note a bundle whose worker lived."""
        self.landed += 1

    def died(self, positions: Iterable[int], worker: str, *, deaths: int = 1) -> None:
        """Note the death of a worker that had these work items, one of them in hand."""
        self.dead.add(worker)
        for position in positions:
            self.deaths[position] += deaths
            self.workers.setdefault(position, set()).add(worker)

    def must_be_alone(self, position: int) -> bool:
        """Whether the next attempt at a work item should be made with nothing beside it."""
        return self.deaths[position] >= DEATHS - 1

    def is_to_blame(self, position: int) -> bool:
        """Whether a work item that was alone in its last attempt has killed its workers."""
        own = self.deaths[position]
        others = len(self.dead - self.workers.get(position, set()))
        risk = max(others / max(others + self.landed, 1), LEAST_RISK)
        return own >= MOST_DEATHS or (own >= DEATHS and risk**own <= BAD_LUCK * 1.001)
