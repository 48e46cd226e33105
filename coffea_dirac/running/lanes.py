"""Work items of one run that wait for workers with resources: values in, values out.

A work item that came to a stage which its worker may not run is *blocked*.  It waits in the lane of what it needs; when
that stage is done it goes back to the others, and finds by look-up what was done so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.interfaces import Outcome, Row
from coffea_dirac.running.dispatch import Offer, Pending, Triple
from coffea_dirac.stages.resources import ORDINARY, Grant, Resources, resources_of

# Each time a stage is done; what is sent about more often has a store that loses its records.
MOST_STOPS = 8


@dataclass
class _Stopped:
    """What is known of a work item that was blocked."""

    needs: Grant
    stops: int = 0
    seconds: float = 0.0
    rows: dict[str, Row] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    why: str = ""


class Lanes:
    """The blocked work items of one run.

    Parameters
    ----------
    kinds : iterable of mapping
        What the stages of this run need.

    Examples
    --------
    >>> lanes, gpu = Lanes([{"GPU": 1}]), (("GPU", 1),)
    >>> lanes.stopped(7, Grant(gpu, is_whole=False), why="score {'GPU': 1}")
    >>> lanes.add((7, "item", "key"))
    True
    >>> lanes.waiting(), lanes.take(Offer(1, resources=gpu), seconds_per_item=None)
    ([(('GPU', 1),)], [(7, 'item', 'key')])
    """

    def __init__(self, kinds: Iterable[Any]) -> None:
        self.kinds = tuple(dict.fromkeys(resources_of(kind) for kind in kinds if kind))
        self._stopped: dict[int, _Stopped] = {}
        self._pending: dict[Grant, Pending] = {}

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def needs(self, position: int) -> Grant:
        """Return what a work item needs now."""
        found = self._stopped.get(position)
        return found.needs if found else ORDINARY

    def rows(self, triples: Iterable[Triple]) -> list[Row]:
        """Return the records that work items have come by so far: a worker's index may be older."""
        return [row for triple in triples if (one := self._stopped.get(triple[0])) for row in one.rows.values()]

    def stopped(
        self, position: int, needs: Grant, *, rows: Sequence[Row] = (), seconds: float = 0.0, why: str = ""
    ) -> None:
        """Note that a work item came to its end at a worker for lack of `needs`."""
        one = self._stopped.setdefault(position, _Stopped(needs))
        one.stops += 1
        one.seconds += seconds
        one.why = why or one.why
        one.rows.update((row.key, row) for row in rows)
        one.needs = needs if one.stops <= MOST_STOPS else Grant(resources_of(needs.resources, *self.kinds))

    def seconds(self, position: int) -> float:
        """Return what a work item has taken before it went on to where it is now."""
        found = self._stopped.get(position)
        return found.seconds if found else 0.0

    def why(self, positions: Iterable[int]) -> str:
        """Return the stages that work items wait for."""
        return "; ".join(sorted({one.why for p in positions if (one := self._stopped.get(p))}))

    def news(self, position: int, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return the outcomes that the work item has not had yet: it finds what it did before it was blocked."""
        one = self._stopped.get(position)
        if one is None:
            return outcomes
        new = [o for o in outcomes if o.outcome != "loaded" or o.fingerprint not in one.seen]
        one.seen.update(o.fingerprint for o in outcomes)
        return new

    def add(self, triple: Triple, *, is_again: bool = False) -> bool:
        """Put a work item into the lane of what it needs; return False if it needs nothing.

        Parameters
        ----------
        is_again : bool
            It comes from a worker that was lost, and goes in a bundle of its own.
        """
        needs = self.needs(triple[0])
        if not needs.resources:
            return False
        pending = self._pending.setdefault(needs, Pending())
        if is_again:
            pending.add(triple)
        else:
            pending.join(triple)
        return True

    def waiting(self) -> list[Resources]:
        """Return the resources that work items wait for."""
        return list(dict.fromkeys(grant.resources for grant, pending in self._pending.items() if pending))

    def take(self, offer: Offer, *, seconds_per_item: float | None) -> list[Triple]:
        """Remove and return work items that go together to a worker with what is offered; none if none waits."""
        for grant, pending in self._pending.items():
            if pending and grant.resources == offer.resources:
                return pending.take(offer, seconds_per_item=seconds_per_item)
        return []

    def take_all(self, resources: Resources) -> list[Triple]:
        """Remove and return all work items that wait for `resources`."""
        found: list[Triple] = []
        while taken := self.take(Offer(1, resources=resources), seconds_per_item=None):
            found += taken
        return found
