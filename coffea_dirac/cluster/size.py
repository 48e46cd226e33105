"""How many workers a cluster shall have, by what its tasks ask for; or, when somebody has said so, by number."""

from __future__ import annotations

import time
from collections.abc import Mapping

from coffea_dirac.cluster.adapting import Adapt, Demand, needs_of, too_idle, wanted
from coffea_dirac.dirac.places import spread
from coffea_dirac.dirac.roster import Roster
from coffea_dirac.errors import ConfigurationError


class ClusterSize:
    """What a cluster's roster is told about the number of workers.

    Parameters
    ----------
    roster : Roster
        The workers.
    adapt : Adapt, optional
        How they follow the work; None while a number is kept.
    """

    def __init__(self, roster: Roster, adapt: Adapt | None) -> None:
        self.adapt = adapt
        self._roster = roster
        self._no_work_since_s: float | None = None

    def follow(self, demand: Demand) -> list[str]:
        """Want more workers where there is work for more, and return those that have been idle for too long."""
        if self.adapt is None:
            return []
        self.raise_to(needs_of(self._roster.groups, demand["tasks"]))
        now = time.monotonic()
        self._no_work_since_s = None if demand["tasks"] else self._no_work_since_s or now
        if self._no_work_since_s is not None and now > self._no_work_since_s + self.adapt.idle_s:
            # What still waits in a queue would come for nothing.
            self._roster.let_go([worker.name for worker in self._roster.worker_jobs if not worker.joined])
        groups = {worker.name: worker.place.group.name for worker in self._roster.worker_jobs}
        return too_idle(self.adapt, demand["idle_s"], groups)

    def raise_to(self, needs: Mapping[str, int]) -> None:
        """Want so many workers of each group, as far as there is room; never fewer than now."""
        if self.adapt is None:
            return
        now = self._roster.wanted
        new = dict(now)
        for group in self._roster.groups:
            free = [place for place in self._roster.free_places if place.group is group]
            current = sum(now[place.key] for place in free)
            target = wanted(self.adapt, group, current, needs.get(group.name, 0))
            if target > current:
                new |= {key: max(now[key], number) for key, number in spread(target, free).items()}
        if new != now:
            self._roster.scale(new)

    def at_sites(self, sites: Mapping[str, int]) -> dict[str, int]:
        """Return how many workers there shall be at each place, from how many at each site.

        Raises
        ------
        ConfigurationError
            A site is none of this cluster's.
        """
        found = {}
        for site, number in sites.items():
            keys = [key for key, place in self._roster.places.items() if place.sites == (site,)]
            if not keys:
                known = ", ".join(place.sites[0] for place in self._roster.places.values() if len(place.sites) == 1)
                raise ConfigurationError(f"{site!r} is no site of this cluster, which has {known or 'no single sites'}")
            found[keys[0]] = number
        return found
