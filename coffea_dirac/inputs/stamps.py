"""What tells that a file has changed, without opening it: its stat, or what a storage says of it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from coffea_dirac.inputs.contents import settled_stat
from coffea_dirac.inputs.identity import local_path
from coffea_dirac.inputs.lake import logical_file, what_it_holds

REMOTE_AT_ONCE = 32
REMOTE_DEADLINE_S = 20.0
REMOTE_EACH_S = 0.1
_RACY_REMOTE_S = 5.0
# A time without a zone can be off by a day.
_NO_ZONE_S = 86_400.0
# What fsspec's file systems call the things that change with the content.
_VALIDATORS = (
    "etag",
    "content-md5",
    "digest",
    "checksum",
    "md5hash",
    "crc32c",
    "versionid",
    "version_id",
    "generation",
)
_TIMES = ("mtime", "lastmodified", "last-modified", "last_modified", "modified", "updated")


class Stamp(NamedTuple):
    """A file's size in bytes and whatever else changes when it does."""

    size: int
    rest: str


def stamps(filenames: Iterable[str]) -> dict[str, Stamp]:
    """Return the stamps of files, those of remote ones in bulk; a file without one that can be trusted is left out.

    Examples
    --------
    >>> stamps(["missing.root"])
    {}
    """
    found: dict[str, Stamp] = {}
    remote = []
    for name in filenames:
        path = local_path(name)
        if (file := logical_file(name)) is not None:
            if said := what_it_holds(name):
                found[name] = Stamp(file.size_bytes, said)
        elif path is None:
            remote.append(name)
        elif (s := settled_stat(path)) is not None:
            found[name] = Stamp(s.size, f"{s.mtime_ns} {s.ctime_ns} {s.inode}")
    return {**found, **_Asking(remote).answers()} if remote else found


class _Asking:
    """Asks storages for the stamps of their files, many at once, each storage by its own threads.

    The threads are daemons, unlike those of a pool: a storage that never answers must not hold up the end of the
    process.
    """

    def __init__(self, names: list[str]) -> None:
        self._n = len(names)
        self._came: queue.SimpleQueue[tuple[str, Stamp | None]] = queue.SimpleQueue()
        self._waiting: dict[str, deque[str]] = {}
        for name in names:
            self._waiting.setdefault("/".join(name.split("/", 3)[:3]), deque()).append(name)

    def answers(self) -> dict[str, Stamp]:
        """Return what came; if nothing more comes, the rest is left out and read as if nothing was known of it."""
        threads = max(2, REMOTE_AT_ONCE // len(self._waiting))
        for waiting in self._waiting.values():
            for _ in range(min(threads, len(waiting))):
                threading.Thread(target=self._ask, args=(waiting,), name="stamps", daemon=True).start()
        end = time.monotonic() + REMOTE_DEADLINE_S + REMOTE_EACH_S * self._n
        found = {}
        try:
            for _ in range(self._n):
                name, stamp = self._came.get(timeout=max(0.0, min(REMOTE_DEADLINE_S, end - time.monotonic())))
                if stamp is not None:
                    found[name] = stamp
        except queue.Empty:
            return found
        finally:
            for waiting in self._waiting.values():
                waiting.clear()
        return found

    def _ask(self, waiting: deque[str]) -> None:
        while waiting:
            try:
                name = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            self._came.put((name, _remote_stamp(name)))


def _remote_stamp(name: str) -> Stamp | None:
    import fsspec

    if "::" in name:  # read through a copy somewhere, of which a storage knows nothing
        return None
    try:
        system, path = fsspec.core.url_to_fs(name)
        # Some keep listings; an old one would hide a change.
        system.invalidate_cache(path)
        return _stamp_of(system.info(path))
    except Exception:  # noqa: BLE001 - a storage may fail in any way; the file is then opened, which says what is wrong
        return None


def _stamp_of(info: dict[str, Any]) -> Stamp | None:
    """Return the stamp in what a storage says: all that changes with the content, if that is sure to change."""
    facts = {key.lower(): value for key, value in info.items() if value not in (None, "")}
    times = [facts[key] for key in _TIMES if key in facts]
    # Weak tags stay the same over small changes; many servers make them, and strong ones, from the time in seconds.
    strong = [key for key in _VALIDATORS if key in facts and not str(facts[key]).startswith("W/")]
    if facts.get("size") is None or not (times or strong) or not all(map(_is_old, times)):
        return None
    rest = {key: str(facts[key]) for key in (*strong, *_TIMES) if key in facts}
    return Stamp(int(facts["size"]), repr(sorted(rest.items())))


def _is_old(moment: Any) -> bool:
    """Whether a time is far enough in the past; storages write it as a number, a datetime or a text."""
    try:
        if isinstance(moment, str):
            moment = _parsed(moment)
        if isinstance(moment, datetime):
            age_s = time.time() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            return age_s > (_RACY_REMOTE_S if moment.tzinfo else _NO_ZONE_S)
        return time.time() - float(moment) > _RACY_REMOTE_S
    except (ValueError, TypeError, OverflowError):
        return False


def _parsed(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return datetime.fromisoformat(text)
