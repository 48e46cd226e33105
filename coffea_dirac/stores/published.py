"""A cache that was published as a Rucio dataset: its blobs are logical files, read from the nearest replica.

`register` publishes what is on a storage element already; nothing is copied.  What was published is only read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coffea_dirac.catalogs import open_catalog
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, NoReplicaError, StoreError
from coffea_dirac.inputs import lake
from coffea_dirac.interfaces import Blob, LogicalFile, Replica, Store
from coffea_dirac.stores.remote import RemoteStore

if TYPE_CHECKING:
    from coffea_dirac.catalogs.rucio import RucioCatalog

# Names of files have no folders in most experiments' Rucio, and names of blobs never two dots in a row.
_PREFIX, _SLASH = "coffea_dirac..", ".."


@dataclass
class PublishedStore:
    """Blobs of a Rucio dataset; which there are is asked once.

    Parameters
    ----------
    url : str
        ``rucio://scope:name``.

    Examples
    --------
    >>> PublishedStore("rucio://user.jdoe:ttbar-cache").did
    'user.jdoe:ttbar-cache'
    """

    url: str
    _files: dict[str, LogicalFile] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def did(self) -> str:
        """The dataset."""
        return self.url.partition("://")[2]

    def list(self, prefix: str = "") -> list[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name."""
        return [
            Blob(name, max(0, file.size_bytes), 0.0)
            for name, file in sorted(self._known().items())
            if name.startswith(prefix)
        ]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return bytes ``start:stop`` of a blob, as a slice of bytes would, or None if it is missing."""
        file = self._known().get(name)
        if file is None:
            return None
        # Another process may have unpickled this store.
        lake.know([file])
        try:
            return lake.LogicalFileSystem().cat_file(file.lfn, start, stop)
        except (NoReplicaError, CoffeaDiracError) as error:
            raise StoreError(f"cannot read {self.url}/{name}: {error}") from error

    def create(self, name: str, data: bytes) -> None:
        """Refuse: what is published is only read."""
        del data
        raise StoreError(
            f"cannot write {self.url}/{name}: what is published is only read. Keep results in a cache of your own: "
            "StageCache('root://...')"
        )

    def delete(self, name: str) -> None:
        """Refuse: what is published is only read."""
        raise StoreError(f"cannot delete {self.url}/{name}: what is published goes when its lifetime ends")

    def _known(self) -> dict[str, LogicalFile]:
        if self._files is None:
            try:
                found = open_catalog("rucio").locate([self.did])[self.did]
            except CoffeaDiracError as error:
                raise StoreError(f"cannot list {self.url}: {error}") from error
            self._files = {_blob_name(file.lfn): file for file in found if file.replicas}
        return self._files


def register(
    store: Store,
    did: str,
    rse: str,
    *,
    catalog: RucioCatalog,
    lifetime_s: float,
    advance: Callable[[int], None] = lambda n: None,
) -> int:
    """Publish all blobs of a store that lies at an RSE as a dataset with a lifetime; return how many are new in it.

    Parameters
    ----------
    advance : callable
        Is told whenever so many blobs are done.

    Raises
    ------
    ConfigurationError
        The store is not on a storage element.
    CatalogError, CredentialError
        Rucio cannot be asked, or does not allow it.
    StoreError
        The store cannot be read.
    """
    if not hasattr(catalog, "publish"):
        raise ConfigurationError("datasets are registered with Rucio only: name its server, or leave --catalog out")
    if not isinstance(store, RemoteStore):
        raise ConfigurationError(
            f"{store.url} is no place that others can read: register a cache on a storage element (root://, https://)"
        )
    scope = did.partition(":")[0]
    there = {file.lfn for file in catalog.locate([did])[did]}
    new = []
    for blob in store.list():
        lfn = f"{scope}:{_PREFIX}{blob.name.replace('/', _SLASH)}"
        data = store.read(blob.name) if lfn not in there else None
        if data is not None:
            # Rucio never looks at a storage: what it is told has to be so.
            replica = Replica(lfn, rse, f"{store.url}/{blob.name}")
            new.append(LogicalFile(lfn, len(data), f"{zlib.adler32(data):08x}", (replica,)))
        advance(1)
    catalog.publish(did, new, rse, lifetime_s=lifetime_s)
    return len(new)


def _blob_name(lfn: str) -> str:
    return lfn.partition(":")[2].removeprefix(_PREFIX).replace(_SLASH, "/")
