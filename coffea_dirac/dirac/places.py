"""What workers are and where they may be: groups, the places they have, and how many go where.  Pure values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dask.utils import parse_bytes

from coffea_dirac.errors import ConfigurationError

MANY = 100
"""How many workers a list of sites gets at most, if no maximum is given."""
CPU_TIME_S = 6 * 3600
LEAST_MEMORY = 64 << 20
"""With less a worker of dask pauses as soon as it is up."""


@dataclass(frozen=True)
class WorkerGroup:
    """Workers of one kind.

    Parameters
    ----------
    name : str
        What they are called: the workers are ``name-0``, ``name-1``, ...
    sites : mapping or sequence of str
        ``{site: how many at most}``, or sites that share one maximum.  An empty one means any site.
    maximum : int, optional
        How many at most, all sites together.
    banned : sequence of str
        Sites where they must not be.
    cores : int
        Threads of a worker, and processors of its job.
    memory : int
        Bytes a worker may use, also as dask writes them: ``"4 GiB"``; 0 for no limit.
    cpu_time : int
        Seconds a job may take; its worker leaves in good order before.
    tags : sequence of str
        What the place must have, by DIRAC's names, as in ``["GPU"]``.
    resources : mapping
        What tasks may ask dask for there, as in ``{"GPU": 1}``.
    environment, setup : str
        Where the interpreter comes from at the site, and shell commands before it starts (`coffea_dirac.dirac.script`).

    Examples
    --------
    >>> from coffea_dirac import WorkerGroup
    >>> WorkerGroup("gpu", sites={"LCG.UKI-LT2-IC-HEP.uk": 2}, tags=["GPU"], resources={"GPU": 1}).places()
    [Place(key='gpu@LCG.UKI-LT2-IC-HEP.uk', sites=('LCG.UKI-LT2-IC-HEP.uk',), maximum=2)]
    """

    name: str = "worker"
    sites: Mapping[str, int] | Sequence[str] = ()
    maximum: int | None = None
    banned: Sequence[str] = ()
    cores: int = 1
    memory: int = 0
    cpu_time: int = CPU_TIME_S
    tags: Sequence[str] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    environment: str = ""
    setup: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.sites, str):
            raise ConfigurationError(f"sites is a mapping or a list: sites={{{self.sites!r}: 10}} or [{self.sites!r}]")
        if not isinstance(self.sites, Collection) or not all(isinstance(site, str) for site in self.sites):
            raise ConfigurationError(f"sites={self.sites!r}: it is a mapping or a list, as in sites={{'LCG.A.uk': 10}}")
        if isinstance(self.sites, Mapping) and not self.sites:
            raise ConfigurationError("sites={} names no site: sites={'LCG.A.uk': 10}, or sites=[] for any")
        for name in ("tags", "banned"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigurationError(f"{name} is a list, as in {name}=[{value!r}]")
            if not isinstance(value, Collection) or not all(isinstance(one, str) for one in value):
                raise ConfigurationError(f"{name}={value!r}: it is a list of names, as in {name}=['GPU']")
        for name, example in (("environment", "/cvmfs/example.org/env"), ("setup", "module load cuda")):
            if not isinstance(value := getattr(self, name), str):
                raise ConfigurationError(f"{name}={value!r}: it is a text, as in {name}={example!r}")
        if isinstance(self.sites, Mapping):
            for site, number in self.sites.items():
                if not isinstance(number, int) or number < 1:
                    raise ConfigurationError(
                        f"{site!r} gets at most {number!r} workers: a positive number, or leave it"
                    )
        self._check_numbers()

    def _check_numbers(self) -> None:
        object.__setattr__(self, "memory", size_bytes(self.memory))
        for name, example in (("cores", 4), ("cpu_time", 7200), ("maximum", 10)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"{name}={value!r}: it is a positive whole number, as in {name}={example}")
        numbers = self.resources.values() if isinstance(self.resources, Mapping) else [self.resources]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ConfigurationError(f"resources={self.resources!r}: it has numbers by name, as in {{'GPU': 1}}")

    def places(self) -> list[Place]:
        """Return where its workers can be, without what is banned.

        Raises
        ------
        ConfigurationError
            Everything is banned.
        """
        banned = set(self.banned)
        if isinstance(self.sites, Mapping):
            found = [
                Place(f"{self.name}@{site}", self, (site,), number)
                for site, number in self.sites.items()
                if site not in banned
            ]
        else:
            sites = tuple(site for site in self.sites if site not in banned)
            where = "+".join(sites) or "anywhere"
            found = (
                [Place(f"{self.name}@{where}", self, sites, self.maximum or MANY)] if sites or not self.sites else []
            )
        if not found:
            raise ConfigurationError(f"all sites of {self.name!r} are banned: leave one of {', '.join(self.sites)}")
        return found


@dataclass(frozen=True)
class Place:
    """A site, or several of which any will do, and how many workers of a group may be there."""

    key: str
    group: WorkerGroup = field(repr=False)
    sites: tuple[str, ...]
    maximum: int


def size_bytes(memory: int | str) -> int:
    """Return how much memory is meant; 0 is no limit.

    Raises
    ------
    ConfigurationError
        It is no size, or one with which no worker comes up.

    Examples
    --------
    >>> size_bytes("4 GiB"), size_bytes(2e9), size_bytes(0)
    (4294967296, 2000000000, 0)
    """
    try:
        found = int(parse_bytes(memory))
    except (ValueError, TypeError, AttributeError):
        found = -1
    if found != 0 and found < LEAST_MEMORY:
        raise ConfigurationError(
            f"memory={memory!r}: it is what a worker may use, {LEAST_MEMORY >> 20} MiB or more, as in memory='4 GiB' "
            "or memory=4_000_000_000"
        )
    return found


def spread(n: int, places: Iterable[Place], *, maximum: int | None = None) -> dict[str, int]:
    """Return how many of `n` workers go to each place: evenly, by the share of its maximum that is used.

    Examples
    --------
    >>> places = WorkerGroup(sites={"LCG.A.uk": 20, "LCG.B.uk": 10}).places()
    >>> spread(6, places), spread(100, places)
    ({'worker@LCG.A.uk': 4, 'worker@LCG.B.uk': 2}, {'worker@LCG.A.uk': 20, 'worker@LCG.B.uk': 10})
    """
    found = {place.key: 0 for place in places}
    room = {place.key: place.maximum for place in places}
    for _ in range(min(n, sum(room.values()), math.inf if maximum is None else maximum)):  # type: ignore[arg-type]
        key = min((key for key in found if found[key] < room[key]), key=lambda key: (found[key] + 1) / room[key])
        found[key] += 1
    return found


def worker_options(group: WorkerGroup) -> dict[str, Any]:
    """Return what a worker of a group is told, as JSON values.

    Examples
    --------
    >>> worker_options(WorkerGroup(cores=2, resources={"GPU": 1}))["nthreads"]
    2
    """
    margin_s = max(60, group.cpu_time // 20)
    return {
        "group": group.name,
        "nthreads": group.cores,
        "memory_limit": group.memory,
        "resources": dict(group.resources),
        "lifetime_s": max(group.cpu_time - margin_s, group.cpu_time // 2),
    }
