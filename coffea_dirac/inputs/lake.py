"""Logical files: ``lfn://scope:name`` is read from the nearest replica that works.

It is a file system of fsspec, so uproot, coffea and this package read a logical file as any other.  Where its replicas
are is known to this process (`know`): `coffea_dirac.resolve` tells it, and to workers the task of a run does.  Every
range of bytes is asked for by itself, so a storage may also fail in the middle of a file.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.spec import AbstractBufferedFile

from coffea_dirac.errors import NoReplicaError
from coffea_dirac.interfaces import LogicalFile, Replica
from coffea_dirac.redact import without_secrets
from coffea_dirac.sites import ranked
from coffea_dirac.tokens import bearer_token, trouble

PREFIX = "lfn://"
DEADLINE_S = 10
AVOIDED_S = 300.0
"""So long a storage that did not answer is tried last."""
XROOTD_DEADLINES = {
    "ConnectionWindow": 5,
    "ConnectionRetry": 1,
    "RequestTimeout": 20,
    "StreamTimeout": 10,
    "StreamErrorWindow": 5,
    "TimeoutResolution": 1,
}
"""For XRootD's client, whose own mean eight minutes for a connection that is refused, and half an hour without asking
again."""
# What catalogs write -> what fsspec knows.
_SCHEMES = {"roots": "root", "xroot": "root", "davs": "https", "dav": "http"}
_MISSING = re.compile(r"\[3011\]|no such file|\b404\b|shorter than the catalog", re.IGNORECASE)
_FORBIDDEN = re.compile(r"\[3010\]|permission denied|auth failed|\b40[13]\b", re.IGNORECASE)
_logger = logging.getLogger(__name__)
T = TypeVar("T")

_known: dict[str, LogicalFile] = {}
_near: dict[str, tuple[str, ...]] = {}
_avoided: dict[str, float] = {}
_bad: set[tuple[str, str]] = set()


def know(files: Iterable[LogicalFile], near: Mapping[str, Sequence[str]] | None = None) -> None:
    """Take notice of where files are, and of which RSEs are near each site."""
    _known.update((file.lfn, file) for file in files)
    _near.update((site, tuple(rses)) for site, rses in (near or {}).items())


def told(filenames: Iterable[str]) -> tuple[tuple[LogicalFile, ...], dict[str, tuple[str, ...]]]:
    """Return what another process has to `know` to read these files; nothing for those that are no logical files."""
    found = {file.lfn: file for file in map(logical_file, filenames) if file is not None}
    return tuple(found.values()), dict(_near) if found else {}


def logical_file(filename: str) -> LogicalFile | None:
    """Return what is known of a file by its URL.

    Examples
    --------
    >>> know([LogicalFile("mc:a.root", 10, "0badcafe", ())])
    >>> logical_file("lfn://mc:a.root").size_bytes
    10
    >>> logical_file("a.root") is None
    True
    """
    return _known.get(filename.removeprefix(PREFIX)) if filename.startswith(PREFIX) else None


def is_immutable(file: LogicalFile | None) -> bool:
    """Whether what a catalog says of a file tells what it holds: its size and checksum."""
    return file is not None and file.size_bytes >= 0 and bool(file.adler32)


class LogicalFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The file system of ``lfn://``, which can only be read."""

    protocol = "lfn"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return [cls._strip_protocol(one) for one in path] if isinstance(path, list) else path.removeprefix(PREFIX)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file, from the catalog if it knows."""
        name = self._strip_protocol(path)
        file = _known.get(name)
        size = file.size_bytes if file is not None and file.size_bytes >= 0 else _size_at_a_replica(name)
        return {"name": name, "size": size, "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return a range of bytes."""
        (data,) = self.cat_ranges([path], [start], [end])
        return data

    def cat_ranges(self, paths: Any, starts: Any, ends: Any, *_: Any, **__: Any) -> list[bytes]:
        """Return ranges of bytes; those of one file in one request, if its storage can."""
        names = [self._strip_protocol(path) for path in paths]
        starts = starts if isinstance(starts, Sequence) else [starts] * len(names)
        ends = ends if isinstance(ends, Sequence) else [ends] * len(names)
        found: dict[int, bytes] = {}
        for name in dict.fromkeys(names):
            places = [i for i, other in enumerate(names) if other == name]
            size = self.info(name)["size"]
            ranges = [slice(starts[i], ends[i]).indices(size)[:2] for i in places]
            found.update(zip(places, _read(name, ranges), strict=True))
        return [found[i] for i in range(len(names))]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _File(self, path, mode, **{"cache_type": "readahead", **options})


class _File(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


def _size_at_a_replica(name: str) -> int:
    return _from_a_replica(name, lambda system, path: int(system.info(path)["size"]))


def _read(name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    def step(system: Any, path: str) -> list[bytes]:
        wanted = [(first, last) for first, last in ranges if first < last]
        firsts, lasts = [first for first, _ in wanted], [last for _, last in wanted]
        found = iter(system.cat_ranges([path] * len(wanted), firsts, lasts, on_error="raise") if wanted else [])
        parts = [bytes(next(found)) if first < last else b"" for first, last in ranges]
        if any(len(part) != max(0, last - first) for part, (first, last) in zip(parts, ranges, strict=True)):
            raise OSError("the file is shorter than the catalog says")
        return parts

    return _from_a_replica(name, step)


def _from_a_replica(name: str, step: Callable[[Any, str], T]) -> T:
    """Return what `step` returns for the first replica for which it does not fail."""
    file = _known.get(name)
    if file is None:
        raise NoReplicaError(f"nobody has told where {PREFIX}{name} is: name it with resolve(...) in this process")
    near = _near.get(os.environ.get("DIRACSITE", ""), ())
    now = time.monotonic()
    avoided = [rse for rse, end in list(_avoided.items()) if now < end]
    avoided += [replica.rse for replica in file.replicas if (name, replica.rse) in _bad]
    why = []
    for replica in ranked(file, near, avoided):
        try:
            return step(*_system(replica.pfn))
        except Exception as error:  # noqa: BLE001 - storages fail in any way; if all do, each failure is told
            text = without_secrets(" ".join(str(error).split()) or type(error).__name__)
            _blame(replica, error, text)
            why.append(f"{replica.rse}: {text}")
    raise NoReplicaError(
        f"no replica of {PREFIX}{name} can be read; " + ("; ".join(why) or "the catalog names none") + _credential(why)
    )


def _blame(replica: Replica, error: Exception, text: str) -> None:
    """Note who is to blame: this copy of the file, or its whole storage."""
    is_the_copy = isinstance(error, FileNotFoundError | PermissionError)
    if is_the_copy or _MISSING.search(text) or _FORBIDDEN.search(text):
        _bad.add((replica.lfn, replica.rse))
    else:
        _avoided[replica.rse] = time.monotonic() + AVOIDED_S
    _logger.info("%s is not read from %s: %s", replica.lfn, replica.rse, text)


def _credential(why: Sequence[str]) -> str:
    """Return what is wrong with this user's credential, if storages have refused it."""
    problem = trouble(bearer_token()) if any(map(_FORBIDDEN.search, why)) else ""
    return f". You were refused, and {problem}" if problem else ""


def _system(pfn: str) -> tuple[Any, str]:
    """Return the file system of a replica, with deadlines, and the path there."""
    scheme, _, rest = pfn.partition("://")
    scheme = _SCHEMES.get(scheme, scheme)
    options: dict[str, Any] = {}
    if scheme == "root":
        for name, seconds in XROOTD_DEADLINES.items():
            # Read when XRootD is imported.
            os.environ.setdefault(f"XRD_{name.upper()}", str(seconds))
        options = {"timeout": DEADLINE_S}
    elif scheme in ("http", "https"):
        import aiohttp

        # Over an open line everybody could read a token.
        token = bearer_token() if scheme == "https" else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(sock_connect=DEADLINE_S / 2, sock_read=DEADLINE_S)
        options = {"client_kwargs": {"timeout": timeout, "headers": headers}}
    system, path = url_to_fs(f"{scheme}://{rest}" if rest else pfn, **options)
    return system, path
