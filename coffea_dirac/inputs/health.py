"""What this process has found out about replicas and storages: which are damaged, which do not answer, which are sound.

A replica that is not what the catalog says is not read at all; one that cannot be read is tried last, as are all of a
storage that does not answer.  All of this is forgotten after some minutes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from coffea_dirac.inputs.storages import adler32_of
from coffea_dirac.interfaces import LogicalFile, Replica
from coffea_dirac.sites import ranked

Verify = Literal["size", "adler32"]
"""What is compared with the catalog before a replica is first read: its size, or also all of its bytes."""
AVOIDED_S = 300.0
"""So long a storage that did not answer is tried last, and a damaged replica is not read."""
MOST_TOLD = 20
HEAD_BYTES = 1024
_MISSING = re.compile(r"\[3011\]|no such file|\b404\b|file ends early|illegal seek", re.IGNORECASE)
FORBIDDEN = re.compile(r"\[3010\]|permission denied|auth failed|\b40[13]\b", re.IGNORECASE)
_logger = logging.getLogger(__name__)
_Copy = tuple[str, str]
Damage = tuple[Replica, str]


class DamagedError(OSError):
    """A replica is not what the catalog says."""


class Health:
    """What is known of replicas; of each file its RSEs tell them apart.

    Examples
    --------
    >>> health, file = Health(), LogicalFile("mc:a", 1, "", (Replica("mc:a", "UK", "root://uk.example.org//a"),))
    >>> health.has_damage(file.replicas[0], "zlib.error: incorrect data check")
    >>> health.damage(file.replicas[0])
    'it is damaged (zlib.error: incorrect data check)'
    """

    def __init__(self) -> None:
        self._avoided: dict[str, float] = {}
        self._unreadable: dict[_Copy, float] = {}
        self._damaged: dict[_Copy, tuple[float, str]] = {}
        self._checked: set[_Copy] = set()
        self._alike: dict[str, set[str]] = {}
        self.heads: dict[str, str] = {}
        """Of files without a checksum: a digest of how the replica begins that was read first."""
        self._sound: set[_Copy] = set()
        self._source: dict[str, dict[str, Replica]] = {}
        self._claims: dict[str, list[Damage]] = {}
        self._n_told: Counter[str] = Counter()
        self._news: dict[str, list[str]] = {}
        self._locks: dict[_Copy, threading.Lock] = {}

    def ranked(self, file: LogicalFile, near: Collection[str], weights: Mapping[str, float]) -> list[Replica]:
        """Return the replicas of a file in the order in which to try them, damaged ones too."""
        now = time.monotonic()
        last = [rse for rse, end in list(self._avoided.items()) if now < end]
        last += [r.rse for r in file.replicas if now < self._unreadable.get(_copy(r), 0.0)]
        return ranked(file, near, last, weights)

    def blame(self, replica: Replica, error: Exception, text: str) -> None:
        """Note who is to blame for a failure: this copy of the file, or its whole storage."""
        end = time.monotonic() + AVOIDED_S
        _logger.info("%s is not read from %s: %s", replica.lfn, replica.rse, text)
        if isinstance(error, DamagedError):
            self.has_damage(replica, text)
        elif isinstance(error, FileNotFoundError | PermissionError) or _MISSING.search(text) or FORBIDDEN.search(text):
            self._unreadable[_copy(replica)] = end
            self._tell(replica, f"{replica.lfn} cannot be read at {replica.rse}: {text}")
        else:
            if time.monotonic() >= self._avoided.get(replica.rse, 0.0):
                self._tell(replica, f"{replica.rse} is tried last for {AVOIDED_S / 60:.0f} minutes: {text}")
            self._avoided[replica.rse] = end

    def has_damage(self, replica: Replica, why: str) -> None:
        """Note that a replica is damaged."""
        self._damaged[_copy(replica)] = time.monotonic() + AVOIDED_S, why
        self._sound.discard(_copy(replica))
        self._checked.discard(_copy(replica))
        self._claims.setdefault(replica.lfn, []).append((replica, why))
        self._tell(replica, f"the replica of {replica.lfn} at {replica.rse} is damaged: {why}")

    def _tell(self, replica: Replica, text: str) -> None:
        # Of a site that has lost its files some examples will do.
        self._n_told[replica.rse] += 1
        if self._n_told[replica.rse] <= MOST_TOLD:
            self._news.setdefault(replica.lfn, []).append(text)

    def damage(self, replica: Replica) -> str:
        """Return what is wrong with a replica that must not be read now, nothing if it may."""
        end, why = self._damaged.get(_copy(replica), (0.0, ""))
        return f"it is damaged ({why})" if time.monotonic() < end else ""

    def check(self, file: LogicalFile, replica: Replica, system: Any, path: str, verify: Verify) -> None:
        """Compare a replica with the catalog, once.

        Raises
        ------
        DamagedError
            It is another file.
        """
        if not file.adler32:
            self._compare_heads(replica, system, path)
        copy = _copy(replica)
        whole = verify == "adler32" and file.adler32 != ""
        done = self._sound if whole else self._checked
        if copy in done or file.size_bytes < 0:
            return
        # Others that want to read the same have to wait: to compare all bytes is much work.
        with self._locks.setdefault(copy, threading.Lock()):
            if copy in done:
                return
            size = system.info(path)["size"]
            if size is not None and size != file.size_bytes:
                raise DamagedError(f"it has {size} bytes, and {file.size_bytes} in the catalog")
            self._checked.add(copy)
            if whole:
                self.verify(file, replica, system, path)

    def _compare_heads(self, replica: Replica, system: Any, path: str) -> None:
        """Compare how replicas begin, for files without a checksum: a ROOT file says there who it is and where it ends.

        What the first process found is what others have to find: a result must not be kept for another file.
        """
        if replica.rse in self._alike.get(replica.lfn, ()):
            return
        found = hashlib.sha256(system.cat_file(path, start=0, end=HEAD_BYTES)).hexdigest()
        if self.heads.setdefault(replica.lfn, found) != found:
            raise DamagedError("it begins otherwise than the replica that was read first")
        self._alike.setdefault(replica.lfn, set()).add(replica.rse)

    def forget_heads(self, lfns: Iterable[str]) -> None:
        """Let files begin in another way: they were resolved again."""
        for lfn in lfns:
            self.heads.pop(lfn, None)
            self._alike.pop(lfn, None)

    def verify(self, file: LogicalFile, replica: Replica, system: Any, path: str) -> None:
        """Compare all bytes of a replica with the catalog, which takes as long as to read them.

        Raises
        ------
        DamagedError
            It is another file.
        """
        found = adler32_of(system, path, file.size_bytes)
        if found != int(file.adler32, 16):
            raise DamagedError(f"the adler32 of its bytes is {found:08x}, and {file.adler32} in the catalog")
        self._sound.add(_copy(replica))

    def was_read(self, replica: Replica) -> None:
        """Note that bytes of a file come from this replica."""
        self._source.setdefault(replica.lfn, {})[replica.rse] = replica

    def rses_read(self, lfn: str) -> list[str]:
        """Return the RSEs that bytes of a file have come from."""
        return sorted(self._source.get(lfn, ()))

    def suspects(self, lfn: str) -> list[Replica]:
        """Return the replicas that bytes of a file have come from since this was asked last, sound ones left out."""
        found = self._source.pop(lfn, {})
        return [r for r in found.values() if _copy(r) not in self._sound and not self.damage(r)]

    def acquit(self, replica: Replica) -> None:
        """Take back that a replica is damaged."""
        self._damaged.pop(_copy(replica), None)
        self._news.pop(replica.lfn, None)
        self._claims.pop(replica.lfn, None)

    def claims(self, lfn: str) -> list[Damage]:
        """Return which replicas were taken for damaged since this was asked last, and why."""
        return self._claims.pop(lfn, [])

    def news(self, lfn: str) -> list[str]:
        """Return what was found of the replicas of a file since this was asked last."""
        return self._news.pop(lfn, [])


def _copy(replica: Replica) -> _Copy:
    return replica.lfn, replica.rse
