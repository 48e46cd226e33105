"""Keeping a store small and sound: quota, least recently used first, removal of records.

Packs are immutable, so a pack is the unit: it goes whole, or what is to stay of it is written into a new one first.
Whatever happens meanwhile, a reader that finds a pack gone has a miss and no error.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coffea_dirac import packs
from coffea_dirac.errors import ConfigurationError, CorruptRecordError
from coffea_dirac.interfaces import Blob, Record, Row, Store
from coffea_dirac.packs.format import canonical
from coffea_dirac.packs.pack import PACK_NAME, SESSIONS
from coffea_dirac.stores import LocalStore

DEFAULT_QUOTA_BYTES = 20 * 10**9
# A session without close.json may still run, at least so long.
OPEN_S = 7 * 86400.0
# When the quota is reached some room is made, so that the next session does not have to do it again.
ROOM = 0.9
# So much is read at once when all is read.
READ_BYTES = 64 << 20
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGTP]?)(i?)B?\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def session_of(name: str) -> str:
    """Return the session that a blob belongs to."""
    return name.split("/", 3)[2]


def size_bytes(text: str | float) -> int:
    """Return a size written as people write it, in bytes.

    Raises
    ------
    ConfigurationError
        It is no size.

    Examples
    --------
    >>> size_bytes("20 GB"), size_bytes("1.5 GiB"), size_bytes(1000)
    (20000000000, 1610612736, 1000)
    """
    if isinstance(text, int | float) and text >= 0:
        return int(text)
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f'{text!r} is no size: write it as "20 GB", "500 MB" or as a number of bytes')
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].upper()])


@dataclass
class Contents:
    """What lies in a store, by session.

    Attributes
    ----------
    size_bytes : int
        Of all blobs.
    packs : dict of str to Blob
        By name.
    used_s : dict of str to float
        When a session that used a pack was closed, or when it was written; seconds since 1970.
    referenced : set of str
        Packs that a session which came to its end has used.
    blobs : dict of str to list of Blob
        All there is, by session.
    open_sessions : set of str
        Sessions that may still run: their packs are let be.
    """

    size_bytes: int = 0
    packs: dict[str, Blob] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)
    blobs: dict[str, list[Blob]] = field(default_factory=lambda: defaultdict(list))
    open_sessions: set[str] = field(default_factory=set)


class _Closing(NamedTuple):
    """What a ``close.json`` says: when each pack was used, and of which other sessions it tells."""

    used_s: Mapping[str, float]
    sessions: Sequence[str]


def contents(store: Store, *, now_s: float | None = None) -> Contents:
    """Return what lies in a store and when it was used.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    now_s = time.time() if now_s is None else now_s
    found = Contents()
    closings: dict[str, _Closing] = {}
    for blob in store.list(SESSIONS):
        session = session_of(blob.name)
        found.size_bytes += blob.size_bytes
        found.blobs[session].append(blob)
        if PACK_NAME.fullmatch(blob.name):
            found.packs[blob.name] = blob
            found.used_s[blob.name] = min(blob.modified_s, now_s)
        elif blob.name == f"{SESSIONS}{session}/close.json":
            closings[session] = _closing(store, blob.name)
    closed = closings.keys() | {session for closing in closings.values() for session in closing.sessions}
    for session, blobs in found.blobs.items():
        # A clock may have been wrong in both directions.
        if session not in closed and any(abs(now_s - blob.modified_s) < OPEN_S for blob in blobs):
            found.open_sessions.add(session)
    for closing in closings.values():
        for pack in closing.used_s.keys() & found.packs.keys():
            found.referenced.add(pack)
            found.used_s[pack] = max(found.used_s[pack], min(closing.used_s[pack], now_s))
    return found


def _closing(store: Store, name: str) -> _Closing:
    try:
        facts = json.loads(store.read(name) or b"{}")
        names = [str(pack) for pack in facts.get("packs", ())]
        times = [float(used_s) for used_s in facts.get("used_s") or [facts["closed_s"]] * len(names)]
        if not all(map(math.isfinite, times)):
            raise ValueError("no times")
        return _Closing(dict(zip(names, times, strict=True)), [str(other) for other in facts.get("sessions", ())])
    except (ValueError, TypeError, AttributeError, KeyError):
        # Damaged: nobody knows what it used.
        return _Closing({}, ())


def too_old(
    found: Contents, quota_bytes: int | None, *, unused_since_s: float | None = None, unreferenced: bool = False
) -> list[str]:
    """Return the packs that have to go, least recently used first.

    Parameters
    ----------
    quota_bytes : int or None
        If all blobs together are larger, packs go until nine tenths of it are left.
    unused_since_s : float, optional
        Packs not used since then go in any case; seconds since 1970.
    unreferenced : bool
        Packs that no session has used which came to its end go too: those of killed runs.
    """
    removable = [name for name in found.packs if session_of(name) not in found.open_sessions]
    removable.sort(key=lambda name: (found.used_s[name], name))
    going = [
        name
        for name in removable
        if (unused_since_s is not None and found.used_s[name] < unused_since_s)
        or (unreferenced and name not in found.referenced)
    ]
    left = found.size_bytes - sum(found.packs[name].size_bytes for name in going)
    if quota_bytes is not None and left > quota_bytes:
        gone = set(going)
        for name in (name for name in removable if name not in gone):
            if left <= ROOM * quota_bytes:
                break
            going.append(name)
            left -= found.packs[name].size_bytes
    return going


def remove(store: Store, found: Contents, going: Iterable[str]) -> int:
    """Delete packs, and tell of the others in one index blob; return the bytes that are free now.

    Raises
    ------
    StoreError
        The store cannot be read or written.
    """
    gone = set(going)
    for name in gone:
        store.delete(name)
    freed = sum(found.packs[name].size_bytes for name in gone) + compact(store, found, gone)
    if isinstance(store, LocalStore):
        store.sweep(OPEN_S)
    return freed


def compact(store: Store, found: Contents, gone: Collection[str] = ()) -> int:
    """Write the index of all sessions that are over as one new session, and delete theirs; return the bytes saved.

    However many sessions there were, a look-up then reads one blob.  The new one is whole before anything is deleted:
    whoever dies in between leaves some rows twice, which does no harm.

    Parameters
    ----------
    gone : collection of str
        Packs that were deleted since `found` was.
    """
    over = sorted(session for session in found.blobs if session not in found.open_sessions)
    told = [blob for session in over for blob in found.blobs[session] if blob.name not in found.packs]
    staying = [name for name in found.packs if name not in gone and session_of(name) not in found.open_sessions]
    if not gone and all(sum(blob.name.endswith(end) for blob in told) <= 1 for end in ("/close.json", ".idx")):
        return 0
    written = _write_compact(store, found, staying) if staying else 0
    for blob in told:
        store.delete(blob.name)
    return sum(blob.size_bytes for blob in told) - written


def _write_compact(store: Store, found: Contents, staying: Sequence[str]) -> int:
    index = packs.Index(store)
    index.refresh()
    session = index.open_session()
    index.write_whole(session, set(staying))
    referenced = sorted(found.referenced.intersection(staying))
    facts = {
        "version": 1,
        "closed_s": round(time.time(), 6),
        "packs": referenced,
        "used_s": [round(found.used_s[name], 6) for name in referenced],
        "sessions": sorted(set(map(session_of, staying))),
    }
    store.create(f"{SESSIONS}{session}/close.json", canonical(facts))
    return sum(blob.size_bytes for blob in store.list(f"{SESSIONS}{session}/"))


def remove_all(store: Store) -> None:
    """Delete every blob.

    Raises
    ------
    StoreError
        The store cannot be read or written.
    """
    for blob in store.list(SESSIONS):
        store.delete(blob.name)
    if isinstance(store, LocalStore):
        store.sweep(0.0)


def drop(store: Store, rows: Iterable[Row]) -> None:
    """Remove records: what else their packs hold is written into a new pack before they go.

    Raises
    ------
    StoreError
        The store cannot be read or written.
    """
    dropped = set(rows)
    index = packs.Index(store)
    index.refresh()
    concerned = {row.pack for row in dropped}
    staying: dict[str, list[Row]] = defaultdict(list)
    for row in index:
        if row.pack in concerned and row not in dropped:
            staying[row.pack].append(row)
    session = index.open_session()
    new: list[Row] = []
    for pack in sorted(concerned):
        writer = packs.PackWriter(store, session, "kept")
        for row, payload in packs.read(store, staying[pack]).items():
            if not isinstance(payload, CorruptRecordError):
                writer.add(Record(row.key, payload, row.codec, row.inputs, row.second_key, row.info))
        new += writer.close()
    index.close_session(session, new)
    for pack in concerned:
        store.delete(pack)


def damaged(store: Store, index: packs.Index) -> Iterator[tuple[Row, str]]:
    """Read every record of an index and yield those that cannot be used, with the reason.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    for _, members in itertools.groupby(sorted(index, key=lambda row: (row.pack, row.offset)), lambda row: row.pack):
        run: list[Row] = []
        for row in members:
            run.append(row)
            if sum(r.length for r in run) > READ_BYTES:
                yield from _damaged(store, run)
                run = []
        yield from _damaged(store, run)


def _damaged(store: Store, rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    for row, payload in packs.read(store, rows).items():
        if isinstance(payload, CorruptRecordError):
            yield row, str(payload)
