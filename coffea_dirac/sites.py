"""In which order the replicas of a file are tried: pure, so that it can be looked at and tested by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from coffea_dirac.interfaces import LogicalFile, Replica

REDIRECTOR = "(redirector)"
"""Stands for an RSE in the replica that a redirector has to find."""


def near_to(site: str, near: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the RSEs near a site; what DIRAC calls ``Grid.Name.country`` others call ``Name``.

    Examples
    --------
    >>> near_to("LCG.RALPP.uk", {"RALPP": ["RALPP_DISK"]})
    ['RALPP_DISK']
    """
    parts = site.split(".")
    return near.get(site) or near.get(parts[1] if len(parts) == 3 else site, ())


def ranked(
    file: LogicalFile,
    near: Collection[str] = (),
    avoided: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
) -> list[Replica]:
    """Return the replicas of a file: near ones first, then heavier ones, those of storages that have just failed last.

    Equal ones are in an order that differs from file to file, so that no storage gets all of the readers.

    Parameters
    ----------
    near, avoided : collection of str
        RSEs at the site of this worker; RSEs that failed a short while ago.
    weights : mapping, optional
        RSE -> weight; 1 if it has none.

    Examples
    --------
    >>> file = LogicalFile("mc:a", 1, "", tuple(Replica("mc:a", rse, f"root://{rse}//a") for rse in ("UK", "FR", "IT")))
    >>> [replica.rse for replica in ranked(file, near=["IT"], avoided=["UK"])]
    ['IT', 'FR', 'UK']
    >>> [replica.rse for replica in ranked(file, weights={"FR": 3, "UK": 2})]
    ['FR', 'UK', 'IT']
    """
    heavy = weights or {}

    def order(replica: Replica) -> tuple[bool, bool, bool, float, bytes, int]:
        spread = hashlib.sha256(f"{file.lfn}\0{replica.rse}".encode()).digest()
        place = file.replicas.index(replica)
        is_search = replica.rse == REDIRECTOR
        return replica.rse in avoided, is_search, replica.rse not in near, -heavy.get(replica.rse, 1.0), spread, place

    return sorted(file.replicas, key=order)
