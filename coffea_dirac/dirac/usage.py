"""What the workers of a cluster have cost so far, by site: core-hours, and which part of them was spent computing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from coffea_dirac.dirac.worker_job import WorkerJob
from coffea_dirac.interfaces import Json


@dataclass(slots=True)
class _Spent:
    ended: int = 0
    lost: int = 0
    core_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, worker: WorkerJob) -> None:
        self.core_s += worker.core_s
        self.cpu_s += worker.cpu_s


class Usage:
    """What workers that have ended have cost; those that are up are added when it is asked for.

    Examples
    --------
    >>> from coffea_dirac.dirac.places import WorkerGroup
    >>> (place,) = WorkerGroup(sites={"LCG.A.uk": 2}, cores=4).places()
    >>> Usage().rows([WorkerJob(place, "worker-0")])
    [{'site': 'LCG.A.uk', 'waiting': 1, 'up': 0, 'ended': 0, 'lost': 0, 'core_hours': 0.0, 'cpu_efficiency': None}]
    """

    def __init__(self) -> None:
        self._ended: defaultdict[str, _Spent] = defaultdict(_Spent)

    def end(self, worker: WorkerJob, *, is_lost: bool = False) -> None:
        """Enter a worker that is no more."""
        spent = self._ended[worker.site]
        spent.add(worker)
        spent.ended += not is_lost
        spent.lost += is_lost

    def rows(self, workers: Iterable[WorkerJob]) -> list[dict[str, Json]]:
        """Return a row for each site where workers are, wait or have been.

        Parameters
        ----------
        workers : iterable of WorkerJob
            Those that are up or on their way.

        Returns
        -------
        list of dict
            ``core_hours`` count from the start of a job; ``cpu_efficiency`` is the part of them that its worker used a
            processor, None while nothing has run.
        """
        at: dict[str, list[WorkerJob]] = defaultdict(list)
        for worker in workers:
            at[worker.site].append(worker)
        found = []
        for site in sorted({*at, *self._ended}):
            here, spent = at[site], self._ended.get(site, _Spent())
            total = _Spent(core_s=spent.core_s, cpu_s=spent.cpu_s)
            for worker in here:
                total.add(worker)
            found.append(
                {
                    "site": site,
                    "waiting": sum(not worker.joined for worker in here),
                    "up": sum(worker.joined for worker in here),
                    "ended": spent.ended,
                    "lost": spent.lost,
                    "core_hours": round(total.core_s / 3600, 4),
                    "cpu_efficiency": round(total.cpu_s / total.core_s, 3) if total.core_s else None,
                }
            )
        return found
