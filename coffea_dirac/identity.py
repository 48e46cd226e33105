"""Which data a file holds: the identity of an input file, read from the file itself.

The UUID of a ROOT file survives an update in place and may be zero, and coffea's "uuid" of a parquet file is a digest "
"of
its name, so neither is trusted alone.  An identity covers the size, the list of keys, the header of the tree (which
holds
the entries and where every basket lies) and, for files of this machine, the bytes: all of them up to
`WHOLE_BYTES`, a regular sample above.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

WHOLE_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 256, 4096
# A file changed within the resolution of its time stamps could change again unseen: as git does, such a stat is not
# trusted.
_RACY_NS = 50_000_000


class FileIdentity(NamedTuple):
    """What a file holds.

    `digest` is 64 hex digits, `entries` the number of entries of the tree the identity was asked for.
    """

    digest: str
    entries: int


class _Stat(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class IdentityMemo:
    """Identities already read in this process, kept as long as the stat of the file is the same.

    Examples
    --------
    >>> memo = IdentityMemo()
    >>> memo.identify("missing.root", "Events")
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[_Stat, FileIdentity]] = {}
        self._lock = threading.Lock()

    def identify(
        self, filename: str, treename: str, *, file_format: str = "root", uproot_options: dict[str, Any] | None = None
    ) -> FileIdentity:
        """Return the identity of `filename`, read from the file unless its stat is known.

        Raises
        ------
        OSError
            The file is missing or cannot be read.
        uproot.exceptions.KeyInFileError
            The file has no such tree.
        """
        path = local_path(filename)
        before = _stat(path) if path else None
        known = self._known.get((filename, treename, file_format))
        if known and before and known[0] == before:
            return known[1]
        read = _parquet_identity if file_format == "parquet" else _root_identity
        found = read(filename, treename, path, uproot_options or {})
        if before and path and _stat(path) == before and _is_settled(before):
            with self._lock:
                self._known[filename, treename, file_format] = (before, found)
        return found


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


def _stat(path: Path) -> _Stat:
    s = path.stat()
    return _Stat(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)


def _is_settled(stat: _Stat) -> bool:
    return time.time_ns() - max(stat.mtime_ns, stat.ctime_ns) > _RACY_NS


def _root_identity(filename: str, treename: str, path: Path | None, options: dict[str, Any]) -> FileIdentity:
    import uproot

    h = hashlib.sha256(b"root file identity 1")
    with uproot.open({filename: None}, **options) as file:
        tree = file[treename]
        entries = int(tree.num_entries)
        for part in _root_parts(file, treename):
            h.update(len(part).to_bytes(8, "little") + part)
    h.update(entries.to_bytes(8, "little", signed=True))
    if path is not None:
        h.update(_content_digest(path))
    return FileIdentity(h.hexdigest(), entries)


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


def _parquet_identity(filename: str, treename: str, path: Path | None, options: dict[str, Any]) -> FileIdentity:
    import fsspec
    import pyarrow.parquet as pq

    del treename, options
    with fsspec.open(filename, "rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(size - 8, 0))
        footer_bytes = int.from_bytes(raw.read(4), "little")
        raw.seek(max(size - 8 - footer_bytes, 0))
        footer = raw.read()
        raw.seek(0)
        entries = pq.ParquetFile(raw).metadata.num_rows
    h = hashlib.sha256(b"parquet file identity 1" + size.to_bytes(8, "little") + footer)
    if path is not None:
        h.update(_content_digest(path))
    return FileIdentity(h.hexdigest(), entries)


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
