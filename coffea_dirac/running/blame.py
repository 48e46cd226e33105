"""Which work item is to blame when workers die.

A worker that dies may have been preempted, or killed by what it was asked to do, and it may have had several work
items.  So one death says nothing: the items concerned are tried again one by one, those hit twice when all else is done
and with nothing beside them.  An item that comes back is innocent of all deaths it was near.  One is to blame once
`DEATHS` workers died that had nobody else left to accuse, the last time with it alone, and bad luck is out of the
question as often as workers died under other items.
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
    """Workers that died, the work items that may have killed them, and how many bundles came back.

    Examples
    --------
    >>> blame = Blame()
    >>> for n in range(3):
    ...     blame.died([7, 8], f"worker-{n}", is_alone=n == 2)
    >>> blame.is_to_blame(7)
    False
    >>> blame.came_back([8])
    >>> blame.is_to_blame(7)
    True
    """

    suspects: dict[str, set[int]] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    died_alone: set[int] = field(default_factory=set)
    landed: int = 0

    def came_back(self, positions: Iterable[int]) -> None:
        """Note a bundle whose worker lived."""
        self.landed += 1
        for suspects in self.suspects.values():
            suspects.difference_update(positions)

    def died(self, positions: Iterable[int], worker: str, *, deaths: int = 1, is_alone: bool = False) -> None:
        """Note the death of a worker that had these work items, one of them in hand.

        Parameters
        ----------
        worker : str
            Its address: bundles that were lost with the same worker are one death.
        deaths : int
            So many workers died in a row with the same bundle, this one as the last.
        is_alone : bool
            Whether nothing else was in flight.
        """
        self.suspects.setdefault(worker, set()).update(positions)
        self.deaths[worker] = max(self.deaths[worker], deaths)
        if is_alone:
            self.died_alone.update(positions)

    def times(self, position: int) -> int:
        """Return how many workers died that had a work item."""
        return sum(self.deaths[worker] for worker, suspects in self.suspects.items() if position in suspects)

    def must_be_alone(self, position: int) -> bool:
        """Whether the next attempt at a work item should be made with nothing beside it."""
        return self.times(position) >= DEATHS - 1

    def is_to_blame(self, position: int) -> bool:
        """Whether a work item has killed its workers."""
        if position not in self.died_alone:
            return False
        own = sum(self.deaths[worker] for worker, suspects in self.suspects.items() if suspects == {position})
        others = sum(position not in suspects for suspects in self.suspects.values())
        risk = max(others / max(others + self.landed, 1), LEAST_RISK)
        return self.times(position) >= MOST_DEATHS or (own >= DEATHS and risk**own <= BAD_LUCK * 1.001)
