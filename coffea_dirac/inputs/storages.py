"""How the replicas of a file are opened: by which file system, with which deadlines and credential."""

from __future__ import annotations

import os
import zlib
from typing import Any

from fsspec.core import url_to_fs

from coffea_dirac.tokens import bearer_token

DEADLINE_S = 10
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
_PART_BYTES = 4 << 20
_open: dict[tuple[int, str, str], tuple[str, Any]] = {}
"""Process, scheme and host -> the token and the file system that was made with it."""


def storage_of(pfn: str) -> tuple[Any, str]:
    """Return the file system of a replica, with deadlines, and the path there.

    Examples
    --------
    >>> system, path = storage_of("davs://store.example.org/nano.root")
    >>> path
    'https://store.example.org/nano.root'
    """
    scheme, found, rest = pfn.partition("://")
    if not found:
        return _system(pfn, "", "")
    scheme = _SCHEMES.get(scheme, scheme)
    # Over an open line everybody could read a token; a signed URL is a credential itself, often of somebody else's.
    token = (bearer_token() or "") if scheme == "https" and "?" not in rest else ""
    key = os.getpid(), scheme, rest.partition("/")[0] + "?" * ("?" in rest)
    known = _open.get(key)
    if known is None or known[0] != token:
        # fsspec has it too, but takes longer to find it than to say where a file is.
        known = _open[key] = token, _system(f"{scheme}://{rest}", scheme, token)[0]
    system = known[1]
    return system, system._strip_protocol(f"{scheme}://{rest}")


def _system(url: str, scheme: str, token: str) -> tuple[Any, str]:
    options: dict[str, Any] = {}
    if scheme == "root":
        for name, seconds in XROOTD_DEADLINES.items():
            # Read when XRootD is imported.
            os.environ.setdefault(f"XRD_{name.upper()}", str(seconds))
        options = {"timeout": DEADLINE_S}
    elif scheme in ("http", "https"):
        import aiohttp

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(sock_connect=DEADLINE_S / 2, sock_read=DEADLINE_S)
        options = {"client_kwargs": {"timeout": timeout, "headers": headers}}
    system, path = url_to_fs(url, **options)
    return system, path


def adler32_of(system: Any, path: str, size_bytes: int) -> int:
    """Return the checksum of the bytes that a storage sends: what it says itself it may have noted long ago."""
    value = 1
    for at in range(0, size_bytes, _PART_BYTES):
        value = zlib.adler32(system.cat_file(path, start=at, end=min(at + _PART_BYTES, size_bytes)), value)
    return value
