"""A catalog that is a list: written by hand, or a snapshot of what another catalog said, to be used without it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Catalog, LogicalFile, Replica

_VERSION = 1


class Difference(NamedTuple):
    """What another listing has instead: lfns by what has changed."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    other_content: tuple[str, ...]
    """Files whose size or checksum differs: their results are computed again."""
    other_replicas: tuple[str, ...]


@dataclass(frozen=True)
class ListingCatalog:
    """Logical files by the did that they belong to.

    Examples
    --------
    >>> import tempfile
    >>> listing = ListingCatalog.of({"mc:ttbar": {"mc:a.root": {"replicas": {"UK": "root://uk.example.org//a.root"}}}})
    >>> path = f"{tempfile.mkdtemp()}/snapshot.json"
    >>> listing.save(path)
    >>> ListingCatalog.load(path) == listing
    True
    """

    dids: Mapping[str, tuple[LogicalFile, ...]] = field(default_factory=dict)
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, listing: Mapping[str, Any]) -> ListingCatalog:
        """Return the catalog of a dictionary as `coffea_dirac.open_catalog` describes it."""
        try:
            return cls(
                {did: tuple(_file(lfn, facts) for lfn, facts in files.items()) for did, files in listing.items()}
            )
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise ConfigurationError(
                f"this is no listing of files ({error}): write "
                "{did: {file did: {'size_bytes': .., 'adler32': .., 'replicas': {rse: pfn}}}}"
            ) from error

    @classmethod
    def snapshot(cls, catalog: Catalog, dids: Sequence[str], *, with_sites: bool = True) -> ListingCatalog:
        """Return what a catalog says now of some dids, to be saved and used without it."""
        found = {did: tuple(files) for did, files in catalog.locate(dids).items()}
        rses = {replica.rse for files in found.values() for file in files for replica in file.replicas}
        near = catalog.sites(rses) if with_sites else {}
        return cls(found, {site: tuple(some) for site, some in sorted(near.items())})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ListingCatalog:
        """Return the catalog that `save` wrote.

        Raises
        ------
        ConfigurationError
            The file is none.
        """
        try:
            content = json.loads(Path(path).read_bytes())
            if content["version"] != _VERSION:
                raise ConfigurationError(f"{path} was written by another version of coffea_dirac: make a new snapshot")
            near = {site: tuple(rses) for site, rses in content.get("near", {}).items()}
            return cls({did: tuple(map(_from_row, rows)) for did, rows in content["dids"].items()}, near)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{path} is no snapshot of a catalog: ListingCatalog.save writes one") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the catalog as JSON, one line for each file, so that two of them can be compared by eye too."""
        dids = []
        for did, files in sorted(self.dids.items()):
            rows = ",\n".join(json.dumps(_row(file)) for file in sorted(files))
            dids.append(f"{json.dumps(did)}: [\n{rows}\n]")
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        head = f'{{"version": {_VERSION}, "near": {json.dumps(self.near)}, "dids": {{'
        part.write_text(f"{head}\n" + ",\n".join(dids) + "\n}}\n")
        part.replace(target)

    def locate(self, dids: Sequence[str]) -> dict[str, tuple[LogicalFile, ...]]:
        """Return the files of each did, which may also be that of a file; an unknown one maps to nothing."""
        by_lfn: dict[str, LogicalFile] = {}
        if any(did not in self.dids for did in dids):
            by_lfn = {file.lfn: file for files in self.dids.values() for file in files}
        return {did: self.dids.get(did) or ((by_lfn[did],) if did in by_lfn else ()) for did in dids}

    def sites(self, rses: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return which of some RSEs are at each site."""
        found = {site: tuple(rse for rse in near if rse in rses) for site, near in self.near.items()}
        return {site: near for site, near in found.items() if near}

    def touch(self, did: str) -> None:
        """Do nothing: nobody wants to know."""

    def suspect(self, pfn: str, why: str) -> None:
        """Do nothing: nobody wants to know."""

    def diff(self, other: ListingCatalog) -> Difference:
        """Return what `other` has instead of this listing.

        Examples
        --------
        >>> old = ListingCatalog.of({"mc:t": {"mc:a": {"replicas": {}}, "mc:b": {"replicas": {}}}})
        >>> new = ListingCatalog.of({"mc:t": {"mc:b": {"replicas": {"UK": "root://uk.example.org//b"}}}})
        >>> old.diff(new)
        Difference(added=(), removed=('mc:a',), other_content=(), other_replicas=('mc:b',))
        """
        old, new = _by_lfn(self.dids.values()), _by_lfn(other.dids.values())
        both = sorted(old.keys() & new.keys())
        return Difference(
            tuple(sorted(new.keys() - old.keys())),
            tuple(sorted(old.keys() - new.keys())),
            tuple(lfn for lfn in both if old[lfn][:3] != new[lfn][:3]),
            tuple(lfn for lfn in both if set(old[lfn].replicas) != set(new[lfn].replicas)),
        )


def _by_lfn(groups: Iterable[tuple[LogicalFile, ...]]) -> dict[str, LogicalFile]:
    return {file.lfn: file for files in groups for file in files}


def _file(lfn: str, facts: Mapping[str, Any]) -> LogicalFile:
    replicas = []
    for rse, pfns in facts["replicas"].items():
        replicas += [Replica(lfn, rse, str(pfn)) for pfn in ([pfns] if isinstance(pfns, str) else pfns)]
    return LogicalFile(lfn, int(facts.get("size_bytes", -1)), str(facts.get("adler32", "")), tuple(replicas))


def _row(file: LogicalFile) -> list[Any]:
    return [file.lfn, file.size_bytes, file.adler32, [[replica.rse, replica.pfn] for replica in file.replicas]]


def _from_row(row: Sequence[Any]) -> LogicalFile:
    lfn, size_bytes, adler32, replicas = row
    return LogicalFile(lfn, size_bytes, adler32, tuple(Replica(lfn, rse, pfn) for rse, pfn in replicas))
