"""The door for data: names of datasets in, a fileset of logical files out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from coffea_dirac.catalogs import ListingCatalog, open_catalog
from coffea_dirac.errors import ConfigurationError, NoReplicaError
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.health import Verify
from coffea_dirac.interfaces import Catalog


class LogicalFileset(dict[str, Any]):
    """A fileset of coffea whose files are logical: ``lfn://scope:name``.

    Attributes
    ----------
    listing : ListingCatalog
        Where everything is: to be saved, compared with a later one, and given to `resolve` as its catalog.
    """

    def __init__(self, datasets: Mapping[str, Any], listing: ListingCatalog) -> None:
        super().__init__(datasets)
        self.listing = listing

    def coverage(self) -> dict[str, dict[str, Any]]:
        """Return for each did its number of files, their bytes, and how many of them each RSE has."""
        found = {}
        for did, files in self.listing.dids.items():
            rses = Counter(rse for file in files for rse in {replica.rse for replica in file.replicas})
            size_bytes = sum(max(0, file.size_bytes) for file in files)
            found[did] = {"files": len(files), "size_bytes": size_bytes, "rses": dict(sorted(rses.items()))}
        return found


def resolve(
    what: str | Sequence[str] | Mapping[str, Any],
    *,
    catalog: str | Mapping[str, Any] | Catalog = "rucio",
    sites: Mapping[str, str | Sequence[str]] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    treename: str | None = None,
    allow_missing: bool = False,
    verify: Verify = "size",
) -> LogicalFileset:
    """Return a fileset of the logical files of datasets or containers; reading one picks a replica that works.

    Parameters
    ----------
    what : str, sequence of str, or mapping
        A did (``"user.jdoe:ttbar"``), several, or a fileset with dids for files: ``{"ttbar": "mc:ttbar"}``,
        ``{"ttbar": {"files": ["mc:ttbar", "mc:more"], "metadata": {...}}}``.
    catalog : str, mapping or Catalog
        As for `coffea_dirac.open_catalog`.
    sites : mapping, optional
        Site -> RSE or RSEs near it.  A worker reads from the RSEs of its own site first, which is what its environment
        says (``DIRACSITE``).
    metadata : mapping, optional
        Dataset -> metadata, in addition to what `what` has.
    treename : str, optional
        The tree in each file, for filesets that need it there.
    allow_missing : bool
        Leave files out of which no replica can be read, instead of raising.
    verify : {"size", "adler32"}
        What is compared with the catalog before a replica is first read by a process: its size, or also all of its
        bytes, which takes as long as to read the whole file.

    Raises
    ------
    ConfigurationError
        `what` is none of these, or a did is not known.
    NoReplicaError
        Some files have no replica that can be read.

    Examples
    --------
    >>> catalog = {"mc:ttbar": {"mc:a.root": {"replicas": {"UK": "root://uk.example.org//a.root"}}}}
    >>> resolve("mc:ttbar", catalog=catalog, metadata={"mc:ttbar": {"xsec": 2.5}})
    {'mc:ttbar': {'files': ['lfn://mc:a.root'], 'metadata': {'xsec': 2.5}}}
    """
    wanted = _wanted(what)
    dids = list(dict.fromkeys(did for files, _ in wanted.values() for did in files))
    listing = ListingCatalog.snapshot(open_catalog(catalog), dids)
    unknown = [did for did in dids if not listing.dids[did]]
    if unknown:
        raise ConfigurationError(f"the catalog does not know {', '.join(unknown)}, or it is empty: look at its name")
    missing = sorted({file.lfn for files in listing.dids.values() for file in files if not file.replicas})
    if missing and not allow_missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise NoReplicaError(
            f"{len(missing)} files have no replica that can be read: {shown}. Another rse_expression may find one; "
            "resolve(..., allow_missing=True) leaves them out"
        )
    near = {site: (rses,) if isinstance(rses, str) else tuple(rses) for site, rses in (sites or {}).items()}
    if verify not in get_args(Verify):
        raise ConfigurationError(f"verify={verify!r}: write verify='size' or verify='adler32'")
    lake.know((file for files in listing.dids.values() for file in files), near, verify=verify)
    datasets = {}
    for dataset, (of_dataset, known) in wanted.items():
        files = [f"{lake.PREFIX}{file.lfn}" for did in of_dataset for file in listing.dids[did] if file.replicas]
        names: Any = list(dict.fromkeys(files))
        if treename is not None:
            names = dict.fromkeys(names, treename)
        datasets[dataset] = {"files": names, "metadata": {**known, **(metadata or {}).get(dataset, {})}}
    return LogicalFileset(datasets, listing)


def _wanted(what: Any) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Return dids and metadata by dataset."""
    if isinstance(what, str):
        what = {what: what}
    elif isinstance(what, Sequence):
        what = {did: did for did in what}
    if not isinstance(what, Mapping) or not what:
        raise ConfigurationError(f"{what!r} names no dataset: write resolve('user.jdoe:ttbar') or a mapping to dids")
    found = {}
    for dataset, spec in what.items():
        files = spec["files"] if isinstance(spec, Mapping) and "files" in spec else spec
        dids = [files] if isinstance(files, str) else list(files)
        if not all(isinstance(did, str) for did in dids):
            raise ConfigurationError(f"{dataset!r} has files that are no dids: {files!r}")
        known = dict(spec.get("metadata") or {}) if isinstance(spec, Mapping) and "files" in spec else {}
        found[str(dataset)] = [did.removeprefix(lake.PREFIX) for did in dids], known
    return found
