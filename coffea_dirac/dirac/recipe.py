"""From a worker that is wanted to the job that starts it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

from coffea_dirac.dirac.places import worker_options
from coffea_dirac.dirac.skew import versions
from coffea_dirac.dirac.transport import Transport
from coffea_dirac.dirac.worker_job import WorkerJob
from coffea_dirac.interfaces import Job


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the workers of a cluster have in common.

    Parameters
    ----------
    transport : Transport
        How they reach the scheduler.
    imports : tuple of str
        Modules that a worker imports before it joins.
    timeout_s : float
        How long a worker looks for its scheduler.
    """

    transport: Transport
    imports: tuple[str, ...]
    timeout_s: float

    def job(self, worker: WorkerJob, contact: str, address: str) -> Job:
        """Return the job of a worker.

        Parameters
        ----------
        worker : WorkerJob
            Which one.
        contact, address : str
            The file with the scheduler's address, and the address; what is used depends on the transport.
        """
        group, in_file = worker.place.group, self.transport.in_file
        options = {
            **worker_options(group),
            # Here nobody ends a worker by its time.
            **({"lifetime_s": 0} if in_file else {}),
            "contact": contact if in_file else "",
            "address": "" if in_file else address,
            "host": self.transport.worker_host,
            "blip_s": self.transport.blip_s,
            "imports": self.imports,
            # Here both are the same.
            "versions": {} if in_file else versions(),
            "timeout_s": self.timeout_s,
            "directory": os.getcwd(),
            "path": _path(with_packages=in_file),
        }
        return Job(
            ("-m", "coffea_dirac.dirac.start_worker", "worker.json"),
            # The same bytes for all workers of a group: they travel once.
            files={"worker.json": json.dumps(options).encode()},
            name=worker.name,
            sites=worker.place.sites,
            banned_sites=() if worker.place.sites else tuple(group.banned),
            cores=group.cores,
            memory_bytes=group.memory,
            cpu_time_s=group.cpu_time,
            tags=tuple(group.tags),
            environment=group.environment,
            setup=group.setup,
        )


def _path(*, with_packages: bool) -> list[str]:
    """Return where workers search for modules; at a site, packages come from its environment, not from here."""
    ours = [str(place) for place in sys.path]
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    return ours if with_packages else [place for place in ours if not place.startswith(prefixes)]
