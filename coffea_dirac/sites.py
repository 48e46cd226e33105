"""In which order the replicas of a file are tried: pure, so that it can be looked at and tested by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from coffea_dirac.interfaces import LogicalFile, Replica


def ranked(file: LogicalFile, near: Collection[str] = (), avoided: Collection[str] = ()) -> list[Replica]:
    """Return the replicas of a file: near ones first, those of storages that have just failed last.

    The others are in an order that differs from file to file, so that no storage gets all of the readers.

    Parameters
    ----------
    near, avoided : collection of str
        RSEs at the site of this worker; RSEs that failed a short while ago.

    Examples
    --------
    >>> file = LogicalFile("mc:a", 1, "", tuple(Replica("mc:a", rse, f"root://{rse}//a") for rse in ("UK", "FR", "IT")))
    >>> [replica.rse for replica in ranked(file, near=["IT"], avoided=["UK"])]
    ['IT', 'FR', 'UK']
    """

    def order(replica: Replica) -> tuple[bool, bool, bytes, int]:
        spread = hashlib.sha256(f"{file.lfn}\0{replica.rse}".encode()).digest()
        return replica.rse in avoided, replica.rse not in near, spread, file.replicas.index(replica)

    return sorted(file.replicas, key=order)
