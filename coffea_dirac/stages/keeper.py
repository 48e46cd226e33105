"""Records going into a store and coming out of it, while a run goes on: what the index has, and what was just made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from coffea_dirac import packs
from coffea_dirac.errors import CorruptRecordError, StoreError
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.stores import RemoteStore

PACK_SECONDS = 0.3
REMOTE_PACK_SECONDS = 20.0
"""Storage elements want few and large files: a bundle, 10 to 30 s of work, makes one or two."""
PACK_BYTES = 32 << 20
Kept = Row | Record
"""A record that lies in the store, or one that is on its way there."""


class Keeper:
    """Keeps records in packs and finds them again; nowhere once the store has failed.

    A pack holds `PACK_SECONDS` of work, far away `REMOTE_PACK_SECONDS`.

    Parameters
    ----------
    store : Store or None
        None: nothing is kept, and nothing is found but what was just made.
    session, name : str
        The session, and who writes; no session: the store is only read.
    index : callable
        Returns the index of the store; called at the first look-up.
    """

    def __init__(
        self, store: Store | None, session: str, name: str, index: Callable[[], packs.Index] | None = None
    ) -> None:
        self._store, self._find_index = store, index
        self._index: packs.Index | None = None
        self._pending: dict[str, list[Record]] = {}
        self._unreadable: set[Row] = set()
        self.rows: list[Row] = []
        self._n_taken = 0
        self.problem = ""
        self._pack_s = REMOTE_PACK_SECONDS if isinstance(store, RemoteStore) else PACK_SECONDS
        self._writer = packs.PackWriter(store, session, name) if store is not None and session else None
        self._opened = time.monotonic()

    @property
    def can_keep(self) -> bool:
        """Whether records go into the store."""
        return self._writer is not None

    def give_up(self, error: StoreError) -> None:
        """Note that the store has failed: nothing more is kept."""
        self.problem, self._writer = self.problem or str(error), None

    # ---------------------------------------------------------------- finding

    def look_up(self, key: str) -> list[Kept]:
        """Return what is kept under a key, the newest last."""
        return self._sound(index.rows([key]).get(key, []) if (index := self._known()) else [], key)

    def look_up_second(self, key: str) -> list[Kept]:
        """Return what is kept under a second key, the newest last."""
        return self._sound(index.second_rows(key) if (index := self._known()) else [], key)

    def _sound(self, rows: Iterable[Row], key: str) -> list[Kept]:
        return [*(row for row in rows if row not in self._unreadable), *self._pending.get(key, ())]

    def _known(self) -> packs.Index | None:
        if self._index is None and self._find_index is not None:
            try:
                self._index = self._find_index()
            except StoreError as error:
                self._find_index = None
                self.give_up(error)
        return self._index

    def payload(self, kept: Kept) -> bytes | None:
        """Return the verified payload of a record, None if it cannot be read; it is not found again then."""
        if isinstance(kept, Record):
            return kept.payload
        assert self._store is not None, "rows come from a store"
        try:
            found = packs.read(self._store, [kept])[kept]
        except StoreError as error:
            self.give_up(error)
            found = CorruptRecordError(str(error))
        if isinstance(found, bytes):
            return found
        self.is_unreadable(kept)
        return None

    def payloads(self, rows: Iterable[Row]) -> dict[Row, bytes]:
        """Return the verified payloads of rows, those that lie together read at once; without what cannot be read."""
        assert self._store is not None, "rows come from a store"
        try:
            found = packs.read(self._store, rows)
        except StoreError:
            # Whoever needs one of them asks for it alone, and is told then.
            return {}
        return {row: payload for row, payload in found.items() if isinstance(payload, bytes)}

    def is_unreadable(self, kept: Kept) -> None:
        """Note that a record cannot be read or decoded."""
        if isinstance(kept, Row):
            self._unreadable.add(kept)

    # ---------------------------------------------------------------- keeping

    def keep(self, record: Record) -> bool:
        """Take a record for the store; return whether a pack was written."""
        if self._writer is None:
            return False
        self._writer.add(record)
        for key in filter(None, (record.key, record.second_key)):
            self._pending.setdefault(key, []).append(record)
        is_full = time.monotonic() - self._opened > self._pack_s or self._writer.size > PACK_BYTES
        return is_full and self.flush()

    def flush(self) -> bool:
        """Write what waits as a pack; return whether it is in the store."""
        if self._writer is None:
            return False
        try:
            rows = self._writer.close()
        except StoreError as error:
            self.give_up(error)
            return False
        finally:
            self._opened = time.monotonic()
        self.note(rows)
        self._pending.clear()
        return True

    def taken(self) -> list[Row]:
        """Return the rows that came since this was asked for last."""
        new, self._n_taken = self.rows[self._n_taken :], len(self.rows)
        return new

    def learn(self, rows: Iterable[Row]) -> None:
        """Take notice of rows that others have written since the index was read."""
        if (index := self._known()) is not None:
            index.add(rows)

    def note(self, rows: Iterable[Row]) -> None:
        """Take notice of rows that lie in the store already."""
        new = list(rows)
        self.rows += new
        with suppress(AttributeError):
            self._index.add(new)  # type: ignore[union-attr]
