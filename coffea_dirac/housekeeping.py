"""Keeping a store small and sound: quota, least recently used first, removal of records.

Packs are immutable, so a pack is the unit: it goes whole, or what is to stay of it is written into a new one first.
Whatever happens meanwhile, a reader that finds a pack gone has a miss and no error.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from coffea_dirac import packs
from coffea_dirac.errors import ConfigurationError, CorruptRecordError
from coffea_dirac.interfaces import Blob, Record, Row, Store
from coffea_dirac.packs.pack import PACK_NAME, SESSIONS

DEFAULT_QUOTA_BYTES = 20 * 10**9
# A session without close.json may still run, at least so long.
OPEN_S = 7 * 86400.0
# When the quota is reached some room is made, so that the next session does not have to do it again.
ROOM = 0.9
# So many sessions that kept nothing are remembered for what they used.
IDLE_SESSIONS = 50
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGTP]?)(i?)B?\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


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
    open_sessions : set of str
        Sessions that may still run: their packs are let be.
    """

    size_bytes: int = 0
    packs: dict[str, Blob] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)
    blobs: dict[str, list[Blob]] = field(default_factory=lambda: defaultdict(list))
    open_sessions: set[str] = field(default_factory=set)


def contents(store: Store, *, now_s: float | None = None) -> Contents:
    """Return what lies in a store and when it was used.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    now_s = time.time() if now_s is None else now_s
    found = Contents()
    for blob in store.list(SESSIONS):
        session = blob.name.split("/", 3)[2]
        found.size_bytes += blob.size_bytes
        found.blobs[session].append(blob)
        if PACK_NAME.fullmatch(blob.name):
            found.packs[blob.name] = blob
            found.used_s[blob.name] = min(blob.modified_s, now_s)
    for session, blobs in found.blobs.items():
        names = {blob.name for blob in blobs}
        closed = f"{SESSIONS}{session}/close.json"
        if closed not in names:
            if max(blob.modified_s for blob in blobs) > now_s - OPEN_S:
                found.open_sessions.add(session)
            continue
        closed_s, used = _closing(store, closed)
        for pack in used:
            if pack in found.used_s:
                found.used_s[pack] = max(found.used_s[pack], min(closed_s, now_s))
    return found


def _closing(store: Store, name: str) -> tuple[float, Sequence[str]]:
    try:
        facts = json.loads(store.read(name) or b"{}")
        return float(facts.get("closed_s", 0.0)), [str(pack) for pack in facts.get("packs", ())]
    except (ValueError, TypeError, AttributeError):
        # Damaged: nobody knows what it used.
        return 0.0, ()


def too_old(found: Contents, quota_bytes: int | None, *, unused_since_s: float | None = None) -> list[str]:
    """Return the packs that have to go, least recently used first.

    Parameters
    ----------
    quota_bytes : int or None
        If all blobs together are larger, packs go until nine tenths of it are left.
    unused_since_s : float, optional
        Packs not used since then go in any case; seconds since 1970.
    """
    removable = [name for name in found.packs if name.split("/", 3)[2] not in found.open_sessions]
    removable.sort(key=lambda name: (found.used_s[name], name))
    going = [name for name in removable if unused_since_s is not None and found.used_s[name] < unused_since_s]
    left = found.size_bytes - sum(found.packs[name].size_bytes for name in going)
    if quota_bytes is not None and left > quota_bytes:
        for name in removable[len(going) :]:
            if left <= ROOM * quota_bytes:
                break
            going.append(name)
            left -= found.packs[name].size_bytes
    return going


def remove(store: Store, found: Contents, going: Iterable[str]) -> int:
    """Delete packs, and what is left of sessions that have none; return the bytes that are free now.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    going = set(going)
    freed = 0
    for name in going:
        store.delete(name)
        freed += found.packs[name].size_bytes
    idle = 0
    for session in sorted(found.blobs, reverse=True):
        blobs = found.blobs[session]
        if session in found.open_sessions or any(b.name in found.packs and b.name not in going for b in blobs):
            continue
        kept_something = any(blob.name in going for blob in blobs)
        idle += not kept_something
        if kept_something or idle > IDLE_SESSIONS:
            for blob in blobs:
                if blob.name not in going:
                    store.delete(blob.name)
                    freed += blob.size_bytes
    return freed


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
    staying = [row for row in index if row.pack in concerned and row not in dropped]
    if staying:
        session = index.open_session()
        writer = packs.PackWriter(store, session, "kept")
        for row, payload in packs.read(store, staying).items():
            if not isinstance(payload, CorruptRecordError):
                writer.add(Record(row.key, payload, row.codec, row.inputs, row.second_key, row.info))
        index.close_session(session, writer.close())
    for pack in concerned:
        store.delete(pack)
