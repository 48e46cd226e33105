"""Packs in a store: write records, read them back, read footers."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence

from coffea_dirac.errors import CorruptRecordError
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.packs.format import (
    Signer,
    Table,
    Verifier,
    payload_of,
    read_table,
    record_bytes,
    table_bytes,
    table_size,
)

SESSIONS = "v1/s/"
PACK_NAME = re.compile(r"v1/s/([A-Za-z0-9_-]+)/p/([A-Za-z0-9_.-]+)-(\d+)-([0-9a-f]{16})\.pack")
# One read fetches records that lie this near to each other, and at most so many bytes.
_GAP = 64 << 10
_READ_SIZE = 64 << 20
# Long enough for the footer of nearly every pack.
_TAIL_SIZE = 32 << 10


class PackWriter:
    """Collects records and writes them as one pack; after `close` it begins the next one.

    Parameters
    ----------
    store : Store
        Where the packs go.
    session : str
        The session they belong to, as `Index.open_session` returned it.
    worker : str
        Who writes; part of the packs' names.
    signer : callable, optional
        Takes a record's statement (bytes), returns its signature.

    Examples
    --------
    >>> import tempfile
    >>> from coffea_dirac.stores import open_store
    >>> store = open_store(tempfile.mkdtemp())
    >>> writer = PackWriter(store, "monday", "worker-1")
    >>> writer.add(Record(key="ab" * 32, payload=b"ten histograms", codec="bytes"))
    >>> rows = writer.close()
    >>> read(store, rows)[rows[0]]
    b'ten histograms'
    """

    def __init__(self, store: Store, session: str, worker: str, *, signer: Signer | None = None) -> None:
        self._store, self._session, self._worker, self._signer = store, session, plain(worker), signer
        self._numbers = itertools.count()
        self._begin()

    def _begin(self) -> None:
        number = next(self._numbers)
        self.name = f"{SESSIONS}{self._session}/p/{self._worker}-{number}-{secrets.token_hex(8)}.pack"
        self.size = 0
        self._rows: list[Row] = []
        self._parts: list[bytes] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, record: Record) -> None:
        """Put a record into the pack; nothing is written yet."""
        row, data = record_bytes(record, pack=self.name, offset=self.size, signer=self._signer)
        self._rows.append(row)
        self._parts.append(data)
        self.size += len(data)

    def close(self) -> list[Row]:
        """Write the pack and return its rows; without records nothing is written.

        Raises
        ------
        StoreError
            If the store cannot be written; the records stay, so that `close` can be tried again.
        """
        rows = self._rows
        if rows:
            self._store.create(self.name, b"".join((*self._parts, table_bytes(rows))))
            self._begin()
        return rows


def plain(name: str) -> str:
    """Return a name with nothing in it that a store does not take."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", "_", name) or "_"


def read_footer(store: Store, name: str) -> Table:
    """Return the rows of a pack.

    Raises
    ------
    CorruptRecordError
        If the pack is missing, torn or damaged; the message names it.
    """
    return _read_table(store, name, pack=name)


def read_index(store: Store, name: str) -> Table:
    """Return the rows of an index blob; errors as in `read_footer`."""
    return _read_table(store, name, pack=None)


def _read_table(store: Store, name: str, *, pack: str | None) -> Table:
    tail = store.read(name, -_TAIL_SIZE)
    try:
        if tail is None:
            raise CorruptRecordError("it is missing")
        size = table_size(tail)
        if size > len(tail):
            tail = store.read(name, -size) or b""
        return read_table(tail, pack=pack)
    except CorruptRecordError as error:
        raise CorruptRecordError(f"{name} cannot be used: {error}") from error


def bundle_rows(store: Store, session: str, worker: str) -> list[Row]:
    """Return the rows that `worker` has kept in this session so far: what an earlier attempt at a bundle finished.

    A damaged pack is left out; its records are then computed again.
    """
    rows: list[Row] = []
    for blob in store.list(f"{SESSIONS}{session}/p/{plain(worker)}-"):
        found = PACK_NAME.fullmatch(blob.name)
        if found is None or found[2] != plain(worker):
            continue
        try:
            table = read_footer(store, blob.name)
        except CorruptRecordError:
            continue
        rows.extend(map(table.row, range(len(table))))
    return rows


def read(
    store: Store, rows: Iterable[Row], *, verifier: Verifier | None = None
) -> dict[Row, bytes | CorruptRecordError]:
    """Return the payload of each row, or the reason why it is not to be used.  Every record is checked on every read.

    Neighbours in a pack are fetched together.

    Raises
    ------
    StoreError
        If the store cannot be read at all.
    """
    found: dict[Row, bytes | CorruptRecordError] = {}
    wanted = sorted(dict.fromkeys(rows), key=lambda row: (row.pack, row.offset))
    for pack, members in itertools.groupby(wanted, key=lambda row: row.pack):
        if not PACK_NAME.fullmatch(pack):
            found.update((row, CorruptRecordError(f"{pack!r} is not the name of a pack")) for row in members)
            continue
        for run in _runs(members):
            found.update(_read_run(store, run, verifier))
    return found


def _runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    run: list[Row] = []
    end = 0
    for row in rows:
        if run and (row.offset > end + _GAP or row.offset + row.length > run[0].offset + _READ_SIZE):
            yield run
            run = []
        end = max(end, row.offset + row.length) if run else row.offset + row.length
        run.append(row)
    if run:
        yield run


def _read_run(store: Store, run: Sequence[Row], verifier: Verifier | None) -> dict[Row, bytes | CorruptRecordError]:
    start, stop = run[0].offset, max(row.offset + row.length for row in run)
    data = store.read(run[0].pack, start, stop)
    if data is None:
        return {row: CorruptRecordError(f"{row.pack} is missing") for row in run}
    whole = memoryview(data)
    found: dict[Row, bytes | CorruptRecordError] = {}
    for row in run:
        begin = row.offset - start
        try:
            found[row] = payload_of(row, whole[begin : begin + row.length], verifier)
        except CorruptRecordError as error:
            found[row] = error
    return found
