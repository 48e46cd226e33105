"""What tells that a file has changed, without opening it: its stat, or what a storage says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from coffea_dirac.identity import local_path

# A file changed within the resolution of its time stamps could change again unseen: as git does, such a stat is not
# trusted, nor one from the future.
_RACY_S = 0.05
_RACY_REMOTE_S = 5.0
REMOTE_AT_ONCE = 32
REMOTE_DEADLINE_S = 20.0
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
        if path is None:
            remote.append(name)
            continue
        try:
            s = os.stat(path)  # noqa: PTH116 - ten thousand of them
        except OSError:
            continue
        if time.time() - max(s.st_mtime, s.st_ctime) > _RACY_S:
            found[name] = Stamp(s.st_size, f"{s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}")
    if remote:
        found.update(_remote_stamps(remote))
    return found


def _remote_stamps(names: list[str]) -> dict[str, Stamp]:
    """Ask for all at once; what has not answered by the deadline is read as if nothing was known of it."""
    pool = ThreadPoolExecutor(REMOTE_AT_ONCE, thread_name_prefix="stamps")
    jobs = {pool.submit(_remote_stamp, name): name for name in names}
    done, _ = wait(jobs, timeout=REMOTE_DEADLINE_S)
    pool.shutdown(wait=False, cancel_futures=True)
    answers = {jobs[job]: job.result() for job in done}
    return {name: stamp for name, stamp in answers.items() if stamp is not None}


def _remote_stamp(name: str) -> Stamp | None:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(name)
        info: dict[str, Any] = system.info(path)
    except Exception:  # noqa: BLE001 - a storage may fail in any way; the file is then opened, which says what is wrong
        return None
    facts = {key.lower(): value for key, value in info.items() if value not in (None, "")}
    size = facts.get("size")
    rest = {key: str(facts[key]) for key in _VALIDATORS if key in facts}
    if not rest:
        rest = {key: str(facts[key]) for key in _TIMES if key in facts and _is_old(facts[key])}
    return Stamp(int(size), repr(sorted(rest.items()))) if size is not None and rest else None


def _is_old(moment: Any) -> bool:
    """Whether a time is far enough in the past; storages write it as a number, a datetime or a text."""
    from email.utils import parsedate_to_datetime

    try:
        if isinstance(moment, str):
            moment = parsedate_to_datetime(moment)
        seconds = float(moment) if isinstance(moment, int | float) else moment.timestamp()
    except (ValueError, TypeError, AttributeError):
        return False
    return time.time() - seconds > _RACY_REMOTE_S
