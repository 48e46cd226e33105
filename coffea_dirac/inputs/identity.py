"""Which data a file holds: the identity of an input file, read from the file itself.

The UUID of a ROOT file survives an update in place and may be zero, and coffea's "uuid" of a parquet file is a digest
of its name, so neither is trusted alone.  An identity covers the size, the list of keys, the header of the tree (which
holds the entries and where every basket lies) and, for files of this machine, the bytes: all of them up to
`WHOLE_BYTES`, a regular sample above.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from coffea_dirac.inputs.lake import what_it_holds
from coffea_dirac.inputs.paths import digest_path

WHOLE_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 256, 4096
SCHEME = 1
"""Changes when identities of files that did not change do."""


class FileIdentity(NamedTuple):
    """What a file holds.

    `digest` is 64 hex digits, `entries` the number of entries of the tree the identity was asked for; `uuid` and
    `clusters` (the entries at which clusters of baskets begin, and the last; None if not asked for) are what coffea's
    metadata says of it.
    """

    digest: str
    entries: int
    uuid: bytes = b""
    clusters: tuple[int, ...] | None = None


class Reading(NamedTuple):
    """How a file is read for its identity."""

    file_format: str = "root"
    uproot_options: Mapping[str, Any] = MappingProxyType({})
    with_clusters: bool = False


def read_identity(filename: str, treename: str, how: Reading) -> FileIdentity:
    """Return the identity of a file, opening it once.

    Raises
    ------
    OSError
        The file is missing or cannot be read.
    uproot.exceptions.KeyInFileError
        The file has no such tree.

    Examples
    --------
    >>> read_identity("missing.root", "Events", Reading())
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """
    read = _parquet_identity if how.file_format == "parquet" else _root_identity
    return read(filename, treename, local_path(filename), how)


def local_path(filename: str) -> Path | None:
    """Return the path of a file of this machine, or None for a URL of another scheme.

    Examples
    --------
    >>> local_path("root://store.example.org//nano.root") is None
    True
    >>> local_path("file:///data/nano.root").name
    'nano.root'
    """
    scheme, found, rest = filename.partition("://")
    if not found:
        return Path(filename)
    return Path(rest) if scheme == "file" else None


def _root_identity(filename: str, treename: str, path: Path | None, how: Reading) -> FileIdentity:
    import uproot

    # The same wherever it is read, and known before it is opened.
    said = what_it_holds(filename)
    h = hashlib.sha256(said.encode() or b"root file identity 1")
    with uproot.open({filename: None}, **how.uproot_options) as file:
        tree = file[treename]
        entries = int(tree.num_entries)
        uuid = bytes(file.file.fUUID)
        clusters = _clusters(tree) if how.with_clusters else None
        for part in () if said else _root_parts(file, treename):
            h.update(len(part).to_bytes(8, "little") + part)
    h.update(entries.to_bytes(8, "little", signed=True))
    if path is not None:
        h.update(_content_digest(path))
    return FileIdentity(h.hexdigest(), entries, uuid, clusters)


def _clusters(tree: Any) -> tuple[int, ...]:
    """Return the entries at which coffea's ``align_clusters`` may divide a tree."""
    if hasattr(tree, "common_entry_offsets"):
        return tuple(int(n) for n in tree.common_entry_offsets())
    starts = {int(cluster.num_first_entry) for cluster in tree.cluster_summaries}
    return tuple(sorted(starts | {int(tree.num_entries)}))


def _root_parts(file: Any, treename: str) -> list[bytes]:
    """Return what identifies a ROOT file without reading its baskets: UUID, end, keys, and the tree's own bytes."""
    reader = file.file
    parts = [reader.uuid.bytes, str(reader.fEND).encode()]
    directory, _, _ = treename.rpartition("/")
    for key in _keys_of(file[directory] if directory else file):
        parts.append(repr((key.fName, key.fClassName, key.fCycle, key.fSeekKey, key.fNbytes, key.fObjlen)).encode())
    key = file.key(treename)
    chunk = reader.source.chunk(key.fSeekKey, key.fSeekKey + key.fNbytes)
    parts.append(chunk.raw_data.tobytes())
    return parts


def _keys_of(directory: Any) -> list[Any]:
    return [directory.key(name) for name in directory.keys(recursive=False, cycle=True)]


def _parquet_identity(filename: str, treename: str, path: Path | None, how: Reading) -> FileIdentity:
    import fsspec
    import pyarrow.parquet as pq

    del treename, how
    with fsspec.open(filename, "rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(size - 8, 0))
        footer_bytes = int.from_bytes(raw.read(4), "little")
        raw.seek(max(size - 8 - footer_bytes, 0))
        footer = raw.read()
        raw.seek(0)
        entries = pq.ParquetFile(raw).metadata.num_rows
    said = what_it_holds(filename).encode()
    h = hashlib.sha256(said or b"parquet file identity 1" + size.to_bytes(8, "little") + footer)
    h.update(entries.to_bytes(8, "little") if said else b"")
    if path is not None:
        h.update(_content_digest(path))
    # coffea's own "uuid" of a parquet file: nothing of what it holds.
    return FileIdentity(h.hexdigest(), entries, hashlib.md5(filename.encode()).digest())


def data_digest(path: str) -> str:
    """Return the digest of a file of this machine that may hold very much, by the same rule, whatever is in it.

    Examples
    --------
    >>> data_digest("missing.root")
    'absent'
    """
    try:
        is_large = os.stat(path).st_size > WHOLE_BYTES  # noqa: PTH116 - called for very many
        return _content_digest(Path(path)).hex() if is_large else digest_path(path)
    except OSError:
        return digest_path(path)


def _content_digest(path: Path) -> bytes:
    """Return a digest of the file's bytes: of all of them, or of its size and a regular sample if it is large."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        h = hashlib.sha256(size.to_bytes(8, "little"))
        for i in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            h.update(file.read(_SAMPLE_BYTES))
        return h.digest()
