"""How many workers a cluster has when nobody says: as many as there is work for, and idle ones end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coffea_dirac.dirac.places import WorkerGroup


@dataclass(frozen=True, slots=True)
class Adapt:
    """How a cluster adapts.

    Parameters
    ----------
    minimum : int
        Workers to keep, of each group, once there was work.
    maximum : int, optional
        Workers of each group at most; by default what its sites allow.
    idle_s : float
        A worker without work for so long ends.
    """

    minimum: int = 0
    maximum: int | None = None
    idle_s: float = 600.0


def needs_of(groups: Sequence[WorkerGroup], tasks: Mapping[str, int]) -> dict[str, int]:
    """Return how many workers of each group there is work for.

    Parameters
    ----------
    groups : sequence of WorkerGroup
        What there is.
    tasks : mapping
        Resources that tasks ask for, as JSON -> number of tasks.

    Examples
    --------
    >>> groups = [WorkerGroup("cpu", cores=2), WorkerGroup("gpu", resources={"GPU": 1})]
    >>> needs_of(groups, {"{}": 5, '{"GPU": 1}': 2})
    {'cpu': 3, 'gpu': 2}
    """
    threads = {group.name: 0 for group in groups}
    for text, number in tasks.items():
        asked = json.loads(text)
        fitting = [group for group in groups if all(group.resources.get(name, 0) >= n for name, n in asked.items())]
        if fitting:
            # Tasks that ask for nothing go where there is nothing to ask for, if there is such a place.
            threads[min(fitting, key=lambda group: len(group.resources)).name] += number
    return {group.name: math.ceil(threads[group.name] / group.cores) for group in groups}


def too_idle(adapt: Adapt, idle_s: Mapping[str, float], group_of: Mapping[str, str]) -> list[str]:
    """Return the workers that have had no work for too long, without the minimum that is kept of each group.

    Examples
    --------
    >>> too_idle(Adapt(minimum=1), {"a-0": 700.0, "a-1": 650.0, "b-0": 3.0}, {"a-0": "a", "a-1": "a", "b-0": "b"})
    ['a-0']
    """
    found = []
    for group in dict.fromkeys(group_of.values()):
        members = [name for name in group_of if group_of[name] == group]
        longest = sorted((name for name in members if name in idle_s), key=lambda name: -idle_s[name])
        idle = [name for name in longest if idle_s[name] > adapt.idle_s]
        found += idle[: max(0, len(members) - adapt.minimum)]
    return found


def least_busy(surplus: Mapping[str, int], busy: Mapping[str, int], place_of: Mapping[str, str]) -> list[str]:
    """Return which workers go when there are too many at some places: those with the least to do.

    Examples
    --------
    >>> least_busy({"x": 1}, {"a": 2, "b": 0, "c": 0}, {"a": "x", "b": "x", "c": "y"})
    ['b']
    """
    found: list[str] = []
    for place, number in surplus.items():
        members = sorted((name for name in place_of if place_of[name] == place), key=lambda name: busy.get(name, 0))
        found += members[:number]
    return found


def wanted(adapt: Adapt, group: WorkerGroup, current: int, need: int) -> int:
    """Return how many workers of a group there shall be: more when there is work for them, never fewer.

    Examples
    --------
    >>> group = WorkerGroup(sites={"LCG.A.uk": 4})
    >>> wanted(Adapt(), group, 0, 3), wanted(Adapt(), group, 3, 1), wanted(Adapt(), group, 3, 99)
    (3, 3, 4)
    """
    room = sum(place.maximum for place in group.places())
    most = min(limit for limit in (room, group.maximum, adapt.maximum) if limit is not None)
    return max(current, min(most, max(need, adapt.minimum)))


Demand = Mapping[str, Any]
"""What `coffea_dirac.dirac.start_scheduler.add_demand` says."""
