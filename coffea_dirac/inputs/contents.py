"""What a file of this machine holds, without reading it again while its stat is the same."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from coffea_dirac.fingerprint import digest_file

AT_MOST = 4096
# A file changed within the resolution of its time stamps could change again unseen: as git does, such a stat is not
# trusted, nor one from the future.  Some file systems (Lustre, FAT) count whole seconds.
_RACY_NS, _RACY_SECONDS_NS = 50_000_000, 2_500_000_000


class FileStat(NamedTuple):
    """What changes with a file: its size in bytes, its times, and which file it is."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def settled_stat(path: str | os.PathLike[str]) -> FileStat | None:
    """Return the stat of a file, or None if there is none that a later change is sure to alter.

    Examples
    --------
    >>> settled_stat("missing.json") is None
    True
    """
    try:
        s = os.stat(path)  # noqa: PTH116 - ten thousand of them
    except (OSError, ValueError):
        return None
    resolution = _RACY_NS if s.st_ctime_ns % 1_000_000_000 else _RACY_SECONDS_NS
    if time.time_ns() - max(s.st_mtime_ns, s.st_ctime_ns) <= resolution:
        return None
    return FileStat(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev)


class ContentMemo:
    """Digests of files, read again only after their stat has changed; of at most `AT_MOST` files.

    It takes no lock: the audit hook, which may run at any `open`, asks it.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "corrections.json"
    >>> _ = path.write_text("{}")
    >>> ContentMemo().digest(path) == digest_file(path)
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[FileStat, str]] = {}

    def digest(self, path: str | os.PathLike[str]) -> str:
        """Return the sha256 of a file's content, 64 hex digits.

        Raises
        ------
        OSError
            The file is missing or cannot be read.
        """
        name, before = os.fspath(path), settled_stat(path)
        stat, digest = self._known.get(name, (None, ""))
        if before is not None and stat == before:
            return digest
        digest = digest_file(path)
        if before is not None:
            # If the file changes while it is read, its stat is never again what it was before.
            self._known[name] = before, digest
            if len(self._known) > AT_MOST:
                for old in list(self._known)[: AT_MOST // 2]:
                    self._known.pop(old, None)
        return digest
