"""What a store has and gets in one session: records looked up, read, loaded and kept, and room made for them.

A broken store never stops or changes an analysis: the first failure becomes one warning, and from then on results of
that run are computed and not kept.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from coffea_dirac import codecs, housekeeping, packs
from coffea_dirac.errors import CodecError, CorruptRecordError, StoreError
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.stores import LocalStore, copies_of

QUOTA_VARIABLE = "COFFEA_DIRAC_CACHE_QUOTA"
# More sessions make every run slower: then their indexes become one.
MOST_SESSIONS = 64
_BETWEEN = frozenset("coffea_dirac coffea dask distributed concurrent contextlib threading".split())


class CacheWarning(UserWarning):
    """Something was computed and not kept, or could not be loaded; the analysis is not affected."""


def warn(text: str) -> None:
    """Warn that something was computed and not kept, at the line of the user's that led here.

    Between that line and this one lie this package, coffea, dask and the threads they start.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        if frame.f_back is None:
            level = 2  # nobody of the user's: then who warns
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(text, CacheWarning, stacklevel=level)


class Records:
    """The records of a store.

    Parameters
    ----------
    store : Store
        Where they are.
    quota : str or int or None
        How large a local store may get; ``"default"`` for 20 GB, or what ``COFFEA_DIRAC_CACHE_QUOTA`` says.
    """

    def __init__(self, store: Store, quota: str | int | None) -> None:
        self.store = store
        self.quota_bytes = _quota_bytes(store, quota)
        self._index: packs.Index | None = None
        self._session = ""
        self._problem = ""
        self._rows: list[Row] = []
        self._used: list[Row] = []
        self._told: set[str] = set()

    def begin(self) -> str:
        """Read what is in the store and open a session; return its name, empty if the store cannot be written."""
        self._problem, self._session, self._rows, self._used = "", "", [], []
        self._index, self._told = None, set()
        self._guard(self._refresh)
        if not self._problem:
            self._guard(self._open)
        return self._session

    def _refresh(self) -> None:
        index = packs.Index(self.store, copies=copies_of(self.store))
        index.refresh()
        self._index = index
        for problem in index.problems:
            self._tell_once(f"a part of {self!r} is unreadable", problem)

    def _open(self) -> None:
        self._session = self._found_index().open_session()

    def index(self) -> packs.Index:
        """Return what the store has, read at the first call.

        Raises
        ------
        StoreError
            The store cannot be read.
        """
        return self._found_index()

    def _found_index(self) -> packs.Index:
        if self._index is None:
            self._refresh()
        assert self._index is not None
        return self._index

    def end(self) -> None:
        """Write the session's index and close it."""
        if self._session and self._index is not None and not self._problem:
            index, session = self._index, self._session
            self._guard(lambda: index.close_session(session, self._rows, used=self._used))
            self._guard(lambda: self._make_room(index, session))
        self._session = ""

    def _make_room(self, index: packs.Index, session: str) -> None:
        """Keep the quota; nearly always it is enough to look at what the beginning of the session has listed."""
        size_bytes = index.size_bytes + sum(row.length for row in self._rows)
        is_full = self.quota_bytes is not None and size_bytes > self.quota_bytes
        if not is_full and index.n_sessions <= MOST_SESSIONS:
            return
        found = housekeeping.contents(self.store)
        going = housekeeping.too_old(found, self.quota_bytes)
        housekeeping.remove(self.store, found, going)
        if any(housekeeping.session_of(name) == session for name in going):
            warn(
                f"{self!r} is too small for this run: a part of what it has kept was removed at once, since the quota "
                f"is {(self.quota_bytes or 0) / 1e9:.3g} GB. Give it more room: StageCache(..., quota=...) "
                f"or {QUOTA_VARIABLE}."
            )

    def give_up(self, why: str) -> None:
        """Note that the store has failed: one warning, and nothing more is kept in this run."""
        if not self._problem:
            self._problem = why
            warn(f"{self!r} is out of use for this run: {why} Results are computed and not kept.")

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreError as error:
            self.give_up(str(error))

    def look_up(self, keys: Iterable[str]) -> dict[str, list[Row]]:
        """Return the rows known for each key that has any, the newest last."""
        found: dict[str, list[Row]] = {}

        def step() -> None:
            found.update(self._found_index().rows(keys))

        self._guard(step)
        return found

    def earlier(self, stages: Iterable[str]) -> dict[str, list[Row]]:
        """Return the rows of stages, by name, that earlier sessions have kept: a walk through all rows."""
        found: dict[str, list[Row]] = {stage: [] for stage in stages}

        def step() -> None:
            of_now = {row.pack for row in self._rows}
            for row in self._found_index():
                stage = row.info.get("stage")
                if stage in found and row.pack not in of_now:
                    found[stage].append(row)

        if found:
            self._guard(step)
        return found

    def read(self, rows: Sequence[Row]) -> dict[Row, bytes]:
        """Return the verified payloads of `rows`; a missing or damaged record is left out, with a warning."""
        found: dict[Row, bytes] = {}

        def step() -> None:
            for row, payload in packs.read(self.store, rows).items():
                if isinstance(payload, CorruptRecordError):
                    self._tell_once(f"a record of {self!r} is unreadable and computed again", str(payload))
                else:
                    found[row] = payload

        self._guard(step)
        self._used.extend(found)
        return found

    def is_unreadable(self, row: Row) -> None:
        """Warn of a record that a worker could not read."""
        self._tell_once(f"a record of {self!r} is unreadable and computed again", f"{row.pack} at {row.offset}")

    def _tell_once(self, what: str, where: str) -> None:
        """Warn of the first of its kind in a run: where one record is damaged there may be thousands."""
        if what not in self._told:
            self._told.add(what)
            warn(f"{what}: {where}. Others like it in this run are not named; `coffea-dirac cache verify` names all.")

    def warn_once(self, what: str, why: str) -> None:
        """Warn of the first of its kind in a session."""
        if what not in self._told:
            self._told.add(what)
            warn(f"{what}: {why}")

    def use(self, rows: Iterable[Row]) -> None:
        """Take notice of rows whose results were used without reading them here: they count as used for `gc`."""
        self._used.extend(rows)

    def load(self, rows: Sequence[Row]) -> dict[Row, Any]:
        """Return the results of `rows`; one that cannot be read or decoded is left out, with a warning."""
        results: dict[Row, Any] = {}
        for row, payload in self.read(rows).items():
            try:
                results[row] = codecs.decode(row.codec, payload)
            except CodecError as error:
                self._tell_once(f"a record of {self!r} cannot be decoded and is computed again", str(error))
        return results

    def noted(self, rows: Iterable[Row]) -> None:
        """Take notice of records that workers have written in this session."""
        new = list(rows)
        self._rows.extend(new)
        if self._index is not None:
            self._index.add(new)
            session, index = self._session, self._index
            if session:
                self._guard(lambda: index.gather(session, self._rows))

    def keep_records(self, records: Sequence[Record]) -> list[Row]:
        """Write records as one pack; return where they lie, nothing if the store cannot be written."""
        if not self._session or self._problem or not records:
            return []
        rows: list[Row] = []

        def step() -> None:
            writer = packs.PackWriter(self.store, self._session, "submitter")
            for record in records:
                writer.add(record)
            rows.extend(writer.close())

        self._guard(step)
        self.noted(rows)
        return rows


def _quota_bytes(store: Store, quota: str | int | None) -> int | None:
    if quota == "default":
        if not isinstance(store, LocalStore):
            return None
        named = os.environ.get(QUOTA_VARIABLE) or housekeeping.DEFAULT_QUOTA_BYTES
        quota = None if named == "none" else named
    return None if quota is None else housekeeping.size_bytes(quota)
