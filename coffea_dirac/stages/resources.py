"""What a stage needs of a worker, and what a call was granted there.

dask counts resources: of two GPUs that a worker says it has, a call that was submitted with one leaves one.  So a stage
with resources runs only inside a call that was submitted with them, wherever that call has come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Resources = tuple[tuple[str, float], ...]
"""Names and amounts, by name; as a mapping they are what dask takes."""


def resources_of(*wanted: Mapping[str, float] | Resources) -> Resources:
    """Return what covers all that is wanted.

    Examples
    --------
    >>> resources_of({"GPU": 1}, {"FPGA": 1, "GPU": 2})
    (('FPGA', 1), ('GPU', 2))
    """
    found: dict[str, float] = {}
    for one in wanted:
        for name, amount in dict(one).items():
            found[name] = max(amount, found.get(name, 0))
    return tuple(sorted(found.items()))


def is_covered(wanted: Mapping[str, float] | Resources, there: Mapping[str, float]) -> bool:
    """Whether what is there is enough."""
    return all(there.get(name, 0) >= amount for name, amount in dict(wanted).items())


@dataclass(frozen=True)
class Grant:
    """What a call may run: stages without resources, those that need no more than it has, or both.

    Parameters
    ----------
    resources : Resources
        What it was submitted with.
    is_whole : bool
        False: only stages that need resources; what they take from others is kept already.

    Examples
    --------
    >>> ORDINARY.allows({}), ORDINARY.allows({"GPU": 1})
    (True, False)
    >>> gpu = Grant((("GPU", 1),), is_whole=False)
    >>> gpu.allows({}), gpu.allows({"GPU": 1})
    (False, True)
    """

    resources: Resources = ()
    is_whole: bool = True

    def allows(self, wanted: Mapping[str, float]) -> bool:
        """Whether a stage may run that needs `wanted`."""
        return is_covered(wanted, dict(self.resources)) and (self.is_whole or bool(wanted))


ORDINARY = Grant()


class Blocked(BaseException):
    """Stages need what this call was not granted; not an Exception, so that ``process`` cannot swallow it.

    Parameters
    ----------
    stages : iterable of Stage
        Which; all else that was asked for is done.
    is_kept : bool
        Whether what they take from other stages is kept, so that another worker finds it.
    """

    metrics: Mapping[str, Any]

    def __init__(self, stages: Iterable[Any], *, is_kept: bool) -> None:
        self.stages, self.is_kept = tuple(stages), is_kept
        self.metrics = {}
        super().__init__(", ".join(sorted({f"{stage.name} {stage.resources}" for stage in self.stages})))

    def asks(self, grant: Grant, *, has_advanced: bool) -> Grant:
        """Return what the work item needs next.

        Parameters
        ----------
        grant : Grant
            What this call had.
        has_advanced : bool
            Whether it has run a stage that needs resources.
        """
        wanted = [stage.resources for stage in self.stages if stage.resources]
        lacking = [one for one in wanted if not grant.allows(one)]
        if not self.is_kept or (not grant.is_whole and not has_advanced):
            # Nothing would be found elsewhere: all of the work item in one place.
            return Grant(resources_of(grant.resources, *wanted))
        if not grant.is_whole:
            return ORDINARY
        if grant.resources:
            return Grant(resources_of(grant.resources, *lacking))
        return Grant(resources_of(lacking[0]), is_whole=False)


def places(workers: Mapping[str, Mapping[str, Any]], kinds: Iterable[Resources], wanted: Resources) -> dict[str, int]:
    """Return the workers where a call may run, with how many such calls at once.

    Those that have what stages need are left to these stages, as long as there are others.

    Parameters
    ----------
    workers : mapping
        Address -> what the scheduler says of a worker.
    kinds : iterable of Resources
        What stages of this run need.
    wanted : Resources
        What the call needs; empty for an ordinary one.

    Examples
    --------
    >>> workers = {"a": {"nthreads": 2, "resources": {}}, "b": {"nthreads": 4, "resources": {"GPU": 1}}}
    >>> gpu = resources_of({"GPU": 1})
    >>> places(workers, [gpu], ()), places(workers, [gpu], gpu), places(workers, [], ())
    ({'a': 2}, {'b': 1}, {'a': 2, 'b': 4})
    """
    if wanted:
        return {address: n for address, worker in workers.items() if (n := _at_once(worker, wanted))}
    threads = {address: int(worker["nthreads"]) for address, worker in workers.items()}
    reserved = {address for address in threads for kind in kinds if _at_once(workers[address], kind)}
    return {address: n for address, n in threads.items() if address not in reserved} or threads


def _at_once(worker: Mapping[str, Any], wanted: Resources) -> int:
    there = worker.get("resources") or {}
    return min([int(worker["nthreads"]), *(int(there.get(name, 0) // amount) for name, amount in wanted if amount)])
