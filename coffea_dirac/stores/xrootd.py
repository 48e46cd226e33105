"""How an XRootD server does the four verbs.  The only file that imports XRootD.

Its own client is used, not fsspec's: that one calls it by callbacks, which XRootD's authors warn of, keeps files open
that have changed, and cannot ask for a file that appears when it is closed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from XRootD import client
from XRootD.client.flags import AccessMode, DirListFlags, OpenFlags, StatInfoFlags

from coffea_dirac.errors import StoreError
from coffea_dirac.inputs.storages import XROOTD_DEADLINES
from coffea_dirac.interfaces import Blob
from coffea_dirac.stores.remote import DEADLINE_S, PassingError, duration_s
from coffea_dirac.tokens import bearer_token, trouble

_PIECE_BYTES = 4 << 20
_NEW = OpenFlags.NEW | OpenFlags.MAKEPATH | OpenFlags.POSC
_MODE = AccessMode.UR | AccessMode.UW | AccessMode.GR | AccessMode.OR
_MISSING, _EXISTS, _IS_FOLDER, _FORBIDDEN, _NOT_A_FOLDER = 3011, 3018, 3016, 3010, 3020
# A server's errors that pass: I/O, its own, overload, file in use, time out.
_PASSING = frozenset((3007, 3012, 3024, 3034, 3035))
_SERVER_SAID, _AUTHENTICATION = 400, 204
_lock = threading.Lock()


def set_deadlines() -> None:
    """Give XRootD's client deadlines, apart from those that the environment sets (``XRD_CONNECTIONWINDOW`` ...)."""
    for name, seconds in XROOTD_DEADLINES.items():
        if f"XRD_{name.upper()}" not in os.environ:
            client.EnvPutInt(name, seconds)


class XRootDWire:
    """Files below a directory of an XRootD server."""

    def __init__(self, url: str) -> None:
        set_deadlines()
        parts = urlsplit(url)
        self._url = url
        self._folder = "/" + parts.path.lstrip("/")
        self._system = client.FileSystem(f"root://{parts.netloc}")

    def list(self, prefix: str) -> Iterator[Blob]:
        """Yield the blobs below the folder of `prefix`; what is being written is not there yet."""
        folder = prefix.rpartition("/")[0]
        path = f"{self._folder}/{folder}".rstrip("/")
        status, entries = self._system.dirlist(
            path, DirListFlags.STAT | DirListFlags.RECURSIVE, timeout=int(DEADLINE_S)
        )
        if not status.ok:
            if status.errno in (_MISSING, _NOT_A_FOLDER):
                return
            raise _explained(status)
        start = len(self._folder) + 1
        for entry in entries or ():
            facts = entry.statinfo
            if facts is not None and not facts.flags & (StatInfoFlags.IS_DIR | StatInfoFlags.POSC_PENDING):
                name = entry.name if entry.name.startswith(self._folder) else f"{path}/{entry.name}"
                yield Blob(name[start:], facts.size, float(facts.modtime))

    def read(self, name: str, start: int, stop: int | None) -> bytes | None:
        """Return a slice of a file."""
        file = client.File()
        status, _ = file.open(f"{self._url}/{name}", OpenFlags.READ, timeout=int(DEADLINE_S))
        if not status.ok:
            if status.errno in (_MISSING, _IS_FOLDER):
                return None
            raise _explained(status)
        try:
            # Came with the answer to open.
            status, facts = file.stat(force=False, timeout=int(DEADLINE_S))
            _check(status)
            first, last, _ = slice(start, stop).indices(facts.size)
            return b"".join(_pieces(file, first, last))
        finally:
            file.close(timeout=int(DEADLINE_S))

    def create(self, name: str, data: bytes) -> None:
        """Write a file that others see when it is closed."""
        file, view = client.File(), memoryview(data)
        status, _ = file.open(f"{self._url}/{name}", _NEW, _MODE, timeout=int(DEADLINE_S))
        if status.errno == _EXISTS:
            raise FileExistsError(name)
        _check(status)
        try:
            for at in range(0, len(data), _PIECE_BYTES):
                piece = bytes(view[at : at + _PIECE_BYTES])
                status, _ = file.write(piece, at, timeout=int(duration_s(len(piece))))
                _check(status)
        finally:
            closed, _ = file.close(timeout=int(DEADLINE_S))
        _check(closed)

    def delete(self, name: str) -> None:
        """Remove a file."""
        status, _ = self._system.rm(f"{self._folder}/{name}", timeout=int(DEADLINE_S))
        if not status.ok and status.errno != _MISSING:
            raise _explained(status)


def _pieces(file: Any, first: int, last: int) -> Iterator[bytes]:
    while first < last:
        size = min(last - first, _PIECE_BYTES)
        status, piece = file.read(first, size, timeout=int(duration_s(size)))
        _check(status)
        if not piece:
            raise PassingError(f"the server ended {last - first} bytes before the end of the file")
        yield piece
        first += len(piece)


def _check(status: Any) -> None:
    if not status.ok:
        raise _explained(status)


def _explained(status: Any) -> Exception:
    text = " ".join(status.message.replace("[ERROR]", "").replace("[FATAL]", "").split()).rstrip(".")
    if status.errno == _FORBIDDEN or status.code == _AUTHENTICATION or "Auth failed" in text:
        return StoreError(f"{text}. {trouble(bearer_token()) or 'Ask for the right to read and create files there'}.")
    if status.code == _SERVER_SAID and status.errno not in _PASSING:
        return StoreError(f"{text}.")
    return PassingError(text)
