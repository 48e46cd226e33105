"""A store on a storage element: what holds for root://, https:// and s3:// alike.

How a protocol does the four verbs is the matter of its own file, a `Wire`.  Here is what makes a storage far away
bearable: every request has a deadline, failures that may pass are tried again within a budget, and a storage that does
not answer is left alone for a while, by all stores of this process, so that it costs seconds once and not in each task.
"""

from __future__ import annotations

import importlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Blob
from coffea_dirac.stores.local import check_name

DEADLINE_S = 10.0
"""So long one request may take, apart from the time its bytes need; none is tried again later than this."""
ATTEMPTS = 4
_FIRST_PAUSE_S = 0.2
# A storage that was dead is asked again after so long; twice as long after each failure.
_REST_S, _LONGEST_REST_S = 30.0, 600.0
_SLOWEST_BYTES_PER_S = 250_000
_WIRES = {"root": "xrootd:XRootDWire", "https": "webdav:WebdavWire", "http": "webdav:WebdavWire", "s3": "s3:S3Wire"}
_HOST = re.compile(r"[^:]+://[^/]+")
T = TypeVar("T")


class PassingError(Exception):
    """A request failed in a way that may pass; with `retry_after_s` the storage has said when to come again."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(text)


class Wire(Protocol):
    """The four verbs as one protocol does them, each with one request if it can, none tried again.

    Names are checked already.  `PassingError` says that it may help to ask again, `FileExistsError` that a name is
    taken, `StoreError` anything else, in words that follow "cannot read root://...: ".
    """

    def list(self, prefix: str) -> Iterable[Blob]:
        """Return all blobs of a prefix, in any order; others may be among them, and what is still being written not."""
        ...

    def read(self, name: str, start: int, stop: int | None) -> bytes | None:
        """Return a slice of a blob, None if it is missing."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new blob with all folders it needs."""
        ...

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error."""
        ...


@dataclass(frozen=True)
class RemoteStore:
    """Blobs on a storage element.

    Parameters
    ----------
    url : str
        ``root://``, ``https://``, ``http://`` or ``s3://``, as `coffea_dirac.open_store` writes it.

    Examples
    --------
    >>> RemoteStore("root://store.example.org//jdoe/stages").url
    'root://store.example.org//jdoe/stages'
    """

    url: str

    def list(self, prefix: str = "") -> list[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name; an absent store is empty."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_name(folder)
        found = self._ask("list", folder, lambda wire: list(wire.list(prefix)))
        return sorted(blob for blob in found if blob.name.startswith(prefix))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return bytes ``start:stop`` of a blob, as a slice of bytes would, or None if it is missing."""
        check_name(name)
        return self._ask("read", name, lambda wire: wire.read(name, start, stop))

    def create(self, name: str, data: bytes) -> None:
        """Write a new blob, all of it or nothing; a name that is taken is an error."""
        check_name(name)
        attempts = 0

        def step(wire: Wire) -> None:
            nonlocal attempts
            attempts += 1
            try:
                wire.create(name, data)
            except FileExistsError:
                # An attempt of which no answer came may have done it all.
                if attempts == 1 or wire.read(name, 0, None) != data:
                    raise

        try:
            self._ask("write", name, step)
        except FileExistsError as error:
            raise StoreError(
                f"there is already a blob {self.url}/{name}: blobs are never overwritten, give each one its own name"
            ) from error

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error."""
        check_name(name)
        self._ask("delete", name, lambda wire: wire.delete(name))

    def _ask(self, verb: str, name: str, step: Callable[[Wire], T]) -> T:
        host, what = _host(self.url), f"cannot {verb} {self.url}/{name}".rstrip("/")
        host.check(what)
        end = time.monotonic() + DEADLINE_S
        try:
            wire = _wire(self.url)
            for attempt in range(ATTEMPTS):
                try:
                    result = step(wire)
                except PassingError as error:
                    # Not all workers at once.
                    pause_s = error.retry_after_s or _FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5)
                    if attempt == ATTEMPTS - 1 or time.monotonic() + pause_s > end:
                        host.failed(str(error))
                        raise StoreError(
                            f"{what}: {error}. Look whether the storage is up, or name another."
                        ) from error
                    time.sleep(pause_s)
                else:
                    host.answered()
                    return result
        except StoreError as error:
            if str(error).startswith("cannot "):
                raise
            raise StoreError(f"{what}: {error}") from error
        raise AssertionError("the last attempt returns or raises")


def duration_s(size_bytes: int) -> float:
    """Return how long a request with so many bytes may take."""
    return DEADLINE_S + size_bytes / _SLOWEST_BYTES_PER_S


@dataclass
class _Host:
    """What this process knows of one storage: whether it is worth asking."""

    why: str = ""
    asked_again_s: float = 0.0
    rest_s: float = _REST_S
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, what: str) -> None:
        """Raise if the storage has failed a short while ago; of many threads one may ask it again."""
        if not self.why:
            return
        with self.lock:
            now = time.monotonic()
            if self.why and now < self.asked_again_s:
                raise StoreError(
                    f"{what}: it has just failed ({self.why}); it is asked again in {self.asked_again_s - now:.0f} s"
                )
            self.asked_again_s = now + DEADLINE_S

    def failed(self, why: str) -> None:
        with self.lock:
            self.rest_s = min(self.rest_s * 2, _LONGEST_REST_S) if self.why else _REST_S
            self.why, self.asked_again_s = why, time.monotonic() + self.rest_s

    def answered(self) -> None:
        if self.why:
            self.why = ""


_hosts: dict[str, _Host] = {}
_wires: dict[str, Wire] = {}
_LOCK = threading.Lock()


def _host(url: str) -> _Host:
    found = _HOST.match(url)
    with _LOCK:
        return _hosts.setdefault(found[0] if found else url, _Host())


def _wire(url: str) -> Wire:
    """Return what talks to a storage; connections are kept as long as the process lives."""
    with _LOCK:
        if url not in _wires:
            module, _, name = _WIRES[url.partition("://")[0]].partition(":")
            try:
                kind = getattr(importlib.import_module(f"coffea_dirac.stores.{module}"), name)
            except ImportError as error:
                raise StoreError(f"{error.name or error} is not installed here") from error
            _wires[url] = kind(url)
        return _wires[url]
