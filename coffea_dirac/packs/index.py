"""The index: which rows there are, over all sessions of a store, in memory."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from coffea_dirac.errors import CorruptRecordError, StoreError
from coffea_dirac.interfaces import Row, Store
from coffea_dirac.packs.format import Table, canonical, joined_bytes, read_table, table_bytes
from coffea_dirac.packs.pack import PACK_NAME, SESSIONS, read_footer, read_index

_INDEX_NAME = re.compile(r"v1/s/([A-Za-z0-9_-]+)/i/(\d+)\.idx")
# Fewer new rows are not worth a blob before the end: their footers can be read.
_FIRST_INDEX_ROWS = 256


class Index:
    """All rows of a store by key.  One list and some reads at `refresh`; look-ups are in memory.

    Parameters
    ----------
    store : Store
        Where packs and index blobs are.
    copies : Store, optional
        A store near by, where index blobs are kept for ever once they were read; for stores far away.

    Examples
    --------
    >>> import tempfile
    >>> from coffea_dirac.interfaces import Record
    >>> from coffea_dirac.packs import PackWriter
    >>> from coffea_dirac.stores import open_store
    >>> store = open_store(tempfile.mkdtemp())
    >>> index = Index(store)
    >>> session = index.open_session()
    >>> writer = PackWriter(store, session, "worker-1")
    >>> writer.add(Record(key="ab" * 32, payload=b"ten histograms", codec="bytes"))
    >>> index.close_session(session, writer.close())
    >>> later = Index(store)
    >>> later.refresh()
    >>> len(later.rows(["ab" * 32])["ab" * 32])
    1
    """

    def __init__(self, store: Store, *, copies: Store | None = None) -> None:
        self._store, self._copies = store, copies
        self._places: dict[str, list[Row | tuple[Table, int]]] = {}
        self._read: set[str] = set()
        self._covered: set[str] = set()
        self._packs: set[str] = set()
        self._second: dict[str, list[Row | tuple[Table, int]]] | None = None
        self._loose: list[Row] = []
        self._tables: list[Table] = []
        self._written = 0
        self._number = 0
        self.problems: list[str] = []
        """What the last `refresh` found damaged; the records concerned are absent from the index."""
        self.damaged: list[str] = []
        """The names of the blobs that `problems` tell of, in the same order."""
        self.size_bytes = self.n_sessions = 0
        """How much there was, at the last `refresh`."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Row]:
        """Yield every row whose pack is there."""
        for key in list(self._places):
            yield from self.rows([key]).get(key, ())

    def gone(self) -> Iterator[Row]:
        """Yield every row whose pack is there no more: its session still tells of it."""
        for places in self._places.values():
            rows = (place if isinstance(place, Row) else place[0].row(place[1]) for place in places)
            yield from (row for row in rows if row.pack not in self._packs)

    def refresh(self) -> None:
        """Take in what has come into the store; index blobs and footers that were read are not read again.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        self.problems, self.damaged = [], []
        blobs = self._store.list(SESSIONS)
        names = [blob.name for blob in blobs]
        self.size_bytes, self.n_sessions = sum(blob.size_bytes for blob in blobs), sum(map(_is_start, names))
        indexes = set(filter(_INDEX_NAME.fullmatch, names))
        for name in sorted(indexes):
            self._take_index(name)
        self._forget_copies(indexes)
        self._packs = set(filter(PACK_NAME.fullmatch, names))
        # Packs of sessions still open or dead, and those whose index blob is damaged or gone.
        for name in sorted(self._packs - self._covered):
            self._take_footer(name)

    def _take_index(self, name: str) -> None:
        if name in self._read:
            return
        try:
            table = self._read_index(name)
        except CorruptRecordError as error:
            self._note(name, error)
            return
        self._read.add(name)
        self._covered.update(table.packs)
        self._enter(table)

    def _note(self, name: str, error: CorruptRecordError) -> None:
        # What another process has tidied away since it was listed is no damage.
        if self._store.read(name, 0, 0) is not None:
            self.problems.append(str(error))
            self.damaged.append(name)

    def _read_index(self, name: str) -> Table:
        if self._copies is None:
            return read_index(self._store, name)
        try:
            return read_index(self._copies, name)
        except StoreError:
            data = self._store.read(name)
        try:
            table = read_table(data or b"", pack=None)
        except CorruptRecordError as error:
            raise CorruptRecordError(f"{name} cannot be used: {error}") from error
        try:
            self._copies.delete(name)
            self._copies.create(name, data or b"")
        except StoreError:
            # A copy only saves time; without it the blob is read again next time.
            pass
        return table

    def _forget_copies(self, names: Collection[str]) -> None:
        """Remove copies of what the store has no more."""
        try:
            for blob in self._copies.list(SESSIONS) if self._copies is not None else ():
                if blob.name not in names:
                    self._copies.delete(blob.name)  # type: ignore[union-attr]
        except StoreError:
            return

    def _take_footer(self, name: str) -> None:
        try:
            table = read_footer(self._store, name)
        except CorruptRecordError as error:
            self._note(name, error)
            return
        self._covered.add(name)
        self._enter(table)
        self._loose.extend(map(table.row, range(len(table))))

    def _enter(self, table: Table) -> None:
        self._tables.append(table)
        places = self._places
        for i, key in enumerate(table.keys):
            places.setdefault(key, []).append((table, i))
        self._second = None

    def rows(self, keys: Iterable[str]) -> dict[str, list[Row]]:
        """Return the rows of each key that has any, those of the newest session last."""
        found: dict[str, list[Row]] = {}
        for key in keys:
            present = self._present(self._places.get(key, ()))
            if present:
                found[key] = present
        return found

    def _present(self, places: Sequence[Row | tuple[Table, int]]) -> list[Row]:
        rows = [place if isinstance(place, Row) else place[0].row(place[1]) for place in places]
        present = [row for row in rows if row.pack in self._packs]
        # The same row may be in two index blobs.
        return sorted(dict.fromkeys(present), key=_session) if len(present) > 1 else present

    def second_rows(self, key: str) -> list[Row]:
        """Return the rows of a second key, those of the newest session last."""
        if self._second is None:
            # Made when it is first asked for: most runs look nothing up by it.
            self._second = {}
            for table in self._tables:
                for i, second in enumerate(table.columns["second_key"]):
                    if second:
                        self._second.setdefault(second, []).append((table, i))
            for places in self._places.values():
                for row in places:
                    if isinstance(row, Row) and row.second_key:
                        self._second.setdefault(row.second_key, []).append(row)
        return self._present(self._second.get(key, ()))

    def add(self, rows: Iterable[Row]) -> None:
        """Take in rows that were just written, as their writers reported them."""
        for row in rows:
            self._packs.add(row.pack)
            self._covered.add(row.pack)
            self._places.setdefault(row.key, []).append(row)
            if self._second is not None and row.second_key:
                self._second.setdefault(row.second_key, []).append(row)

    def open_session(self) -> str:
        """Begin a session and return its name; the store is written for the first time here.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{int(now % 1 * 1e6):06d}"
        session = f"{stamp}-{secrets.token_hex(6)}"
        self._store.create(f"{SESSIONS}{session}/start.json", canonical({"version": 1, "created_s": round(now, 3)}))
        self._written = self._number = 0
        return session

    def gather(self, session: str, rows: Sequence[Row]) -> None:
        """Write an index blob if enough is new: each is as large as all before it, so there are few.

        Parameters
        ----------
        rows : sequence of Row
            All rows of this session so far, in the order in which they came.
        """
        new = len(rows) - self._written
        if new >= max(_FIRST_INDEX_ROWS, self._written):
            self.write_index(session, rows[self._written :])
            self._written = len(rows)

    def write_index(self, session: str, rows: Sequence[Row]) -> str:
        """Write rows as the session's next index blob and return its name."""
        name = f"{SESSIONS}{session}/i/{self._number}.idx"
        self._store.create(name, table_bytes(rows))
        self._number += 1
        return name

    def write_whole(self, session: str, packs: Collection[str]) -> None:
        """Write what `refresh` has found of `packs` as the session's next index blob."""
        self._store.create(f"{SESSIONS}{session}/i/{self._number}.idx", joined_bytes(self._tables, packs))
        self._number += 1

    def close_session(self, session: str, rows: Sequence[Row], *, used: Iterable[Row] = ()) -> None:
        """End a session: what is not yet in its index is written there, with the footers that dead sessions left.

        Parameters
        ----------
        rows : sequence of Row
            All rows written in this session, in the order in which they came (as for `gather`).
        used : iterable of Row
            The rows it has loaded; their packs are kept as long as this session counts.

        Raises
        ------
        StoreError
            If the store cannot be read or written.
        """
        packs = {row.pack for row in rows}
        left = [row for row in self._loose if not row.pack.startswith(f"{SESSIONS}{session}/")]
        missing = [blob.name for blob in self._store.list(f"{SESSIONS}{session}/p/") if blob.name not in packs]
        new = [*rows[self._written :], *left, *self._rows_of(missing)]
        if new:
            self.write_index(session, new)
        packs.update(missing, (row.pack for row in used))
        facts = {"version": 1, "closed_s": int(time.time() * 1e6) / 1e6, "packs": sorted(packs)}
        self._store.create(f"{SESSIONS}{session}/close.json", canonical(facts))
        self._loose.clear()
        self._written = self._number = 0

    def _rows_of(self, packs: Iterable[str]) -> list[Row]:
        """Return the rows of packs nobody reported: their worker died before it could."""
        rows: list[Row] = []
        for name in packs:
            try:
                table = read_footer(self._store, name)
            except CorruptRecordError as error:
                self._note(name, error)
                continue
            rows.extend(map(table.row, range(len(table))))
        return rows


def _is_start(name: str) -> bool:
    return name.endswith("/start.json")


def _session(row: Row) -> str:
    return row.pack.split("/", 3)[2]
