"""The file metadata memo: what is known of files that have not changed, so that nobody opens them.

As git's index does, it remembers for each file its stamp (size, times, inode) and what was read from it then.  It is
one small database on this machine, beside a local store's packs, and only ever saves time: where it cannot be read or
written, files are opened.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from coffea_dirac.inputs.identity import SCHEME, FileIdentity, Reading, local_path, read_identity
from coffea_dirac.inputs.lake import survive
from coffea_dirac.inputs.stamps import Stamp, stamps

THREADS = 16
LOCK_S = 1.0
MOST_ROWS = 200_000
BATCH = 500
"""So many files are read before what is known of them is written: an interrupt loses no more."""
HANDED_S = 10.0
_DAY_S = 86_400
_TABLE = f"identities_{SCHEME}"
_COLUMNS = "name, size, stamp, digest, entries, uuid, clusters, used_s, mark"
Name = tuple[str, str]


class IdentityMemo:
    """Identities of files, as long as their stamps are the same.

    Examples
    --------
    >>> memo = IdentityMemo()
    >>> memo.identify_all([("missing.root", "Events")], Reading())
    {('missing.root', 'Events'): FileNotFoundError(...)}
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, FileIdentity]] = {}
        self._handed: dict[str, tuple[float, Stamp]] = {}
        self._place: Path | None = None
        self._lock = threading.Lock()

    def attach(self, place: Path | None) -> None:
        """Remember between sessions in the database `place`, or only in this process."""
        self._place = place

    def identify(self, filename: str, treename: str, how: Reading = Reading()) -> FileIdentity:  # noqa: B008 - a value
        """Return the identity of one file; errors as in `read_identity`."""
        found = self.identify_all([(filename, treename)], how)[filename, treename]
        if isinstance(found, Exception):
            raise found
        return found

    def identify_all(
        self,
        wanted: Collection[Name],
        how: Reading,
        *,
        advance: Callable[[int], None] = lambda n: None,
        hand_on: bool = False,
    ) -> dict[Name, FileIdentity | Exception]:
        """Return the identity of each (file, tree), or why it cannot be read.

        Parameters
        ----------
        how : Reading
            Format and options; with clusters, what is known without them is read again.
        advance : callable
            Is told whenever so many files are done.
        hand_on : bool
            The next call, if it comes within `HANDED_S` seconds, takes the stamps of remote files from this one: the
            metadata of a run's files and their identities then cost one question for each file.
        """
        before = self._stamps({filename for filename, _ in wanted}, hand_on=hand_on)
        names = {pair: _name(pair, how) for pair in wanted}
        self._recall([name for pair, name in names.items() if pair[0] in before])
        found: dict[Name, FileIdentity | Exception] = {}
        for pair, name in names.items():
            stamp, identity = self._known.get(name, (None, None))
            complete = identity is not None and (identity.clusters is not None or not how.with_clusters)
            if identity is not None and complete and stamp == before.get(pair[0]):
                found[pair] = identity
        advance(len(found))
        missing = [pair for pair in names if pair not in found]
        for at in range(0, len(missing), BATCH):
            part = missing[at : at + BATCH]
            found.update(self._read(part, how, advance))
            after = self._stamps({filename for filename, _ in part}, hand_on=hand_on)
            self._keep({names[p]: (before.get(p[0]), after.get(p[0]), found[p]) for p in part})
        return found

    def _stamps(self, filenames: set[str], *, hand_on: bool) -> dict[str, Stamp]:
        """Return the stamps of files, asking no storage again for those that the call before has handed on."""
        handed, self._handed = self._handed, {} if not hand_on else self._handed
        now = time.monotonic()
        known = {
            name: stamp
            for name, (asked_s, stamp) in handed.items()
            if not hand_on and name in filenames and now - asked_s < HANDED_S
        }
        found = {**known, **stamps(filenames - known.keys())}
        if hand_on:
            now = time.monotonic()
            handed.update({name: (now, stamp) for name, stamp in found.items() if local_path(name) is None})
        return found

    def _read(
        self, missing: list[Name], how: Reading, advance: Callable[[int], None]
    ) -> dict[Name, FileIdentity | Exception]:
        def one(pair: Name) -> FileIdentity | Exception:
            try:
                return survive(pair[0], lambda: read_identity(*pair, how))
            except Exception as error:  # noqa: BLE001 - handed to the caller, who knows whether the file may be left out
                return error
            finally:
                advance(1)

        if len(missing) == 1:
            return {missing[0]: one(missing[0])}
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(missing, pool.map(one, missing), strict=True))

    def _keep(self, read: dict[str, tuple[Stamp | None, Stamp | None, FileIdentity | Exception]]) -> None:
        """Remember what was read from files that did not change meanwhile."""
        new = {
            name: (after, identity)
            for name, (before, after, identity) in read.items()
            if after is not None and before == after and isinstance(identity, FileIdentity)
        }
        with self._lock:
            self._known.update(new)
        if new and self._place is not None:
            _write(self._place, new)

    def _recall(self, names: Iterable[str]) -> None:
        """Take in what an earlier session has remembered."""
        unknown = [name for name in names if name not in self._known]
        if unknown and self._place is not None:
            with self._lock:
                self._known.update(_read_rows(self._place, unknown))


def _name(pair: Name, how: Reading) -> str:
    """Return what a file is remembered by: a digest, since URLs may hold secrets."""
    filename, treename = pair
    place = filename if "://" in filename else str(Path(filename).absolute())
    return hashlib.sha256("\0".join((platform.node(), place, treename, how.file_format)).encode()).hexdigest()


def _read_rows(place: Path, names: list[str]) -> dict[str, tuple[Stamp, FileIdentity]]:
    found = {}
    now = time.time()
    unused = []

    def read(database: sqlite3.Connection) -> None:
        for at in range(0, len(names), 500):
            part = names[at : at + 500]
            marks = ",".join("?" * len(part))
            rows = database.execute(f"SELECT {_COLUMNS} FROM {_TABLE} WHERE name IN ({marks})", part)  # noqa: S608
            for name, size, stamp, digest, entries, uuid, clusters, used_s, mark in rows:
                if mark == _mark(name, size, stamp, digest, entries, uuid, clusters):
                    parts = None if clusters is None else tuple(json.loads(clusters))
                    found[name] = Stamp(size, stamp), FileIdentity(digest, entries, bytes.fromhex(uuid), parts)
                    if not abs(now - used_s) < _DAY_S:
                        unused.append((now, name))
        if unused:
            database.executemany(f"UPDATE {_TABLE} SET used_s = ? WHERE name = ?", unused)  # noqa: S608

    _with_database(place, read, create=False)
    return found


def _write(place: Path, new: dict[str, tuple[Stamp, FileIdentity]]) -> None:
    now = time.time()

    def write(database: sqlite3.Connection) -> None:
        database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} ({_COLUMNS}, PRIMARY KEY (name))")
        rows = []
        for name, (stamp, identity) in new.items():
            clusters = None if identity.clusters is None else json.dumps(identity.clusters)
            cells = (name, stamp.size, stamp.rest, identity.digest, identity.entries, identity.uuid.hex(), clusters)
            rows.append((*cells, now, _mark(*cells)))
        database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608
        ((n,),) = database.execute(f"SELECT COUNT(*) FROM {_TABLE}")  # noqa: S608
        if n > MOST_ROWS:
            oldest = f"SELECT name FROM {_TABLE} ORDER BY used_s LIMIT {n - MOST_ROWS // 2}"  # noqa: S608
            database.execute(f"DELETE FROM {_TABLE} WHERE name IN ({oldest})")  # noqa: S608

    _with_database(place, write)


def _mark(*cells: Any) -> str:
    """Return what shows that a row is as it was written."""
    return hashlib.sha256(repr(cells).encode()).hexdigest()[:16]


def _with_database(place: Path, step: Callable[[sqlite3.Connection], None], *, create: bool = True) -> None:
    """Run one transaction; a database that cannot be used is let be, one that is damaged is removed."""
    try:
        if not create and not place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place, timeout=LOCK_S)) as database, database:
            # What a crash tears is found by the marks of the rows.
            database.execute("PRAGMA synchronous=OFF")
            step(database)
    except sqlite3.OperationalError:
        # Locked for too long, read-only, full, or without our table: files are opened then.
        return
    except (sqlite3.DatabaseError, ValueError, TypeError):
        try:
            # Its journal first: sqlite would play it back into the next database.
            place.with_name(f"{place.name}-journal").unlink(missing_ok=True)
            place.unlink(missing_ok=True)
        except OSError:
            return
    except OSError:
        return
