"""The door for data: names of datasets in, a fileset of logical files out."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from coffea_dirac.catalogs import ListingCatalog, open_catalog
from coffea_dirac.catalogs.filesets import Wanted, wanted
from coffea_dirac.errors import ConfigurationError, NoReplicaError
from coffea_dirac.inputs import lake, traces
from coffea_dirac.inputs.health import Verify
from coffea_dirac.interfaces import Catalog, LogicalFile, Replica
from coffea_dirac.sites import REDIRECTOR


class LogicalFileset(dict[str, Any]):
    """A fileset of coffea whose files are logical: ``lfn://scope:name``.

    Attributes
    ----------
    listing : ListingCatalog
        Where everything is: to be saved, compared with a later one, and given to `resolve` as its catalog.
    sites : mapping
        Site -> RSEs near it.
    """

    def __init__(
        self, datasets: Mapping[str, Any], listing: ListingCatalog, sites: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(datasets)
        self.listing = listing
        self.sites = dict(sites or {})

    def coverage(self) -> dict[str, dict[str, Any]]:
        """Return for each did its number of files, their bytes, and how many of them each RSE and each site has."""
        found = {}
        for did, files in self.listing.dids.items():
            at = [{replica.rse for replica in file.replicas} for file in files]
            rses = Counter(rse for some in at for rse in some)
            sites = {site: sum(not some.isdisjoint(near) for some in at) for site, near in self.sites.items()}
            size_bytes = sum(max(0, file.size_bytes) for file in files)
            found[did] = {"files": len(files), "size_bytes": size_bytes, "rses": dict(sorted(rses.items()))}
            found[did]["sites"] = {site: number for site, number in sorted(sites.items()) if number}
        return found

    def table(self) -> str:
        """Return a table for people: files, size, and how much of them each site has.

        Examples
        --------
        >>> catalog = {"mc:t": {"mc:a": {"size_bytes": 2_000_000, "replicas": {"UK_DISK": "root://uk.example.org//a"}}}}
        >>> print(resolve("mc:t", catalog=catalog, sites={"UK": "UK_DISK"}).table())
        did   files    size  where     files   all
        mc:t      1  2.0 MB  UK            1  100%
                             UK_DISK       1  100%
        """
        from rich.console import Console
        from rich.table import Table

        table = Table("did", "files", "size", "where", "files", "all", box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in (1, 2, 4, 5):
            table.columns[column].justify = "right"
        for did, facts in self.coverage().items():
            head = [did, str(facts["files"]), _size(facts["size_bytes"])]
            for where, number in [*facts["sites"].items(), *facts["rses"].items()]:
                table.add_row(*head, where, str(number), f"{number / facts['files']:.0%}")
                head = ["", "", ""]
        said = io.StringIO()
        Console(file=said, width=160, color_system=None).print(table)
        return "\n".join(line.rstrip() for line in said.getvalue().splitlines())


def resolve(
    what: Any,
    *,
    catalog: str | Mapping[str, Any] | Catalog = "rucio",
    sites: Mapping[str, str | Sequence[str]] | None = None,
    weights: Mapping[str, float] | None = None,
    redirector: str | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    treename: str | None = None,
    allow_missing: bool = False,
    verify: Verify = "size",
) -> LogicalFileset:
    """Return a fileset of the logical files of datasets or containers; reading one picks a replica that works.

    Parameters
    ----------
    what : str, sequence of str, mapping, DataDiscoveryCLI or DataGroupSpec
        A did (``"user.jdoe:ttbar"``), several, or a fileset with dids for files: ``{"ttbar": "mc:ttbar"}``,
        ``{"ttbar": {"files": ["mc:ttbar", "mc:more"], "metadata": {...}}}``.  Of what coffea has preprocessed the
        files' steps and the form are kept; their URLs are looked up among the replicas of the dataset's ``did``.
    catalog : str, mapping or Catalog
        As for `coffea_dirac.open_catalog`.
    sites : mapping, optional
        Site -> RSE or RSEs near it, by default what the catalog says.  A worker reads from the RSEs of its own site
        first, which is what its environment says (``DIRACSITE``).
    weights : mapping, optional
        RSE -> weight, 1 by default: of those that are as near heavier ones are read first.
    redirector : str, optional
        What to read if no replica works: ``"root://redirector.example.org//{name}"``, also with ``{scope}``.
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
    if verify not in get_args(Verify):
        raise ConfigurationError(f"verify={verify!r}: write verify='size' or verify='adler32'")
    datasets = wanted(what)
    _check_options(datasets, sites, weights, redirector, metadata or {})
    asked = list(dict.fromkeys(did for dataset in datasets.values() for did in dataset.dids))
    opened = open_catalog(catalog)
    listing = ListingCatalog.snapshot(opened, asked, with_sites=sites is None)
    _check(asked, listing, allow_missing=allow_missing or redirector is not None)
    given = {site: (rses,) if isinstance(rses, str) else tuple(rses) for site, rses in (sites or {}).items()}
    near = listing.near if sites is None else given
    files = (_searched(file, redirector) for some in listing.dids.values() for file in some)
    lake.know(files, near, weights, verify=verify)
    for did, some in listing.dids.items():
        traces.expect(did, (lake.PREFIX + file.lfn for file in some), opened)
    found = {}
    for name, dataset in datasets.items():
        # What is kept besides: the form of the data, for example.
        found[name] = {**dataset.other, "files": _names(name, dataset, listing, treename, any_file=bool(redirector))}
        found[name]["metadata"] = {**dataset.metadata, **(metadata or {}).get(name, {})}
    return LogicalFileset(found, listing, near)


def _check_options(datasets: Any, sites: Any, weights: Any, redirector: str | None, metadata: Any) -> None:
    if sites is not None and not (isinstance(sites, Mapping) and all(sites.values())):
        raise ConfigurationError(f"sites={sites!r}: write sites={{'LCG.A.uk': ['A_DISK']}}, the RSEs near each site")
    if weights is not None and not (
        isinstance(weights, Mapping) and all(isinstance(weight, int | float) for weight in weights.values())
    ):
        raise ConfigurationError(f"weights={weights!r}: write a number for each RSE, weights={{'A_DISK': 2}}")
    if not isinstance(metadata, Mapping) or not all(isinstance(one, Mapping) for one in metadata.values()):
        raise ConfigurationError(f"metadata={metadata!r}: write {{dataset: {{'xsec': 2.5}}}}")
    # It may tell of more datasets than are asked for.
    if metadata and metadata.keys().isdisjoint(datasets):
        raise ConfigurationError(
            f"metadata tells of {', '.join(map(str, metadata))}, and of none of the datasets {', '.join(datasets)}: "
            "write metadata={dataset: {...}}"
        )
    try:
        (redirector or "").format(scope="scope", name="name")
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigurationError(
            f"redirector={redirector!r} ({error}): write 'root://redirector.example.org//{{name}}', also with {{scope}}"
        ) from error


def _check(asked: Sequence[str], listing: ListingCatalog, *, allow_missing: bool) -> None:
    unknown = [did for did in asked if not listing.dids[did]]
    if unknown:
        raise ConfigurationError(f"the catalog does not know {', '.join(unknown)}, or it is empty: look at its name")
    missing = sorted({file.lfn for files in listing.dids.values() for file in files if not file.replicas})
    if missing and not allow_missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise NoReplicaError(
            f"{len(missing)} files have no replica that can be read: {shown}. Another rse_expression may find one; "
            "resolve(..., allow_missing=True) leaves them out"
        )


def _searched(file: LogicalFile, redirector: str | None) -> LogicalFile:
    if redirector is None:
        return file
    scope, _, name = file.lfn.partition(":")
    last = Replica(file.lfn, REDIRECTOR, redirector.format(scope=scope, name=name.lstrip("/")))
    return file._replace(replicas=(*file.replicas, last))


def _names(dataset: str, spec: Wanted, listing: ListingCatalog, treename: str | None, *, any_file: bool) -> Any:
    """Return the ``files`` of a dataset: a list of names, or a mapping to what is known of each."""

    def known(did: str) -> Iterator[str]:
        return (f"{lake.PREFIX}{file.lfn}" for file in listing.dids[did] if any_file or file.replicas)

    if spec.urls:
        return spec.by_lfn(dataset, [file for did in spec.dids for file in listing.dids[did]])
    found = {name: value for did, value in spec.dids.items() for name in known(did)}
    if treename is not None:
        return dict.fromkeys(found, treename)
    return found if any(value is not None for value in found.values()) else list(found)


def _size(size_bytes: int) -> str:
    value, unit = float(size_bytes), 0
    while value >= 1000 and unit < 5:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[unit]}"
