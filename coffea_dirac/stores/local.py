"""A store in a directory of this machine, or of a file system that many machines share."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Blob

# No part begins with a dot: such names are files still being written.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_ATTEMPTS = 20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, or name a directory on another disk",
    errno.EDQUOT: "your quota is used up: free some space, or name a directory elsewhere",
    errno.EACCES: "you have no permission: name a directory of your own",
    errno.EPERM: "the system does not permit it: name a directory of your own",
    errno.EROFS: "the file system is read-only: name a directory that can be written",
    errno.ENOTDIR: "a part of this path is a file: name a directory, or one that does not exist yet",
    errno.EEXIST: "a part of this path is a file: name a directory, or one that does not exist yet",
    errno.EISDIR: "there is a directory where a file should be: name an empty directory",
    errno.ESTALE: "the server has lost the file: look whether the file system is mounted",
}


@dataclass(frozen=True)
class LocalStore:
    """Blobs as files below one directory, which is made when the first one is created.

    A blob appears whole or not at all: it is written beside its place and then linked there.  It is not flushed to the
    disk (20 ms each); a blob torn by a loss of power is found by its digests.

    Parameters
    ----------
    path : str or path-like
        The directory; ``~`` and relative paths are made absolute here, so that workers see the same one.

    Examples
    --------
    >>> import tempfile
    >>> store = LocalStore(tempfile.mkdtemp())
    >>> store.create("v1/greeting", b"good morning")
    >>> store.read("v1/greeting", start=-7)
    b'morning'
    >>> [blob.name for blob in store.list("v1/")]
    ['v1/greeting']
    >>> store.delete("v1/greeting")
    >>> store.read("v1/greeting") is None
    True
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Not resolve(): that looks at the disk, and takes the links away that the user wrote.
        object.__setattr__(self, "path", Path(os.path.abspath(Path(path).expanduser())))  # noqa: PTH100

    @property
    def url(self) -> str:
        """The directory as a URL that `open_store` understands; characters are not quoted."""
        return f"file://{self.path}"

    def list(self, prefix: str = "") -> list[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name; an absent store is empty."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_name(folder)
        try:
            return sorted(_walk(self.path / folder, f"{folder}/" if folder else "", prefix))
        except OSError as error:
            raise _explained("list", self.path / folder, error) from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return bytes ``start:stop`` of a blob, as a slice of bytes would, or None if it is missing."""
        check_name(name)
        try:
            with (self.path / name).open("rb", buffering=0) as file:
                # The slice is cut to the file's size first: what asks for 2**60 bytes must not allocate them.
                first, last, _ = slice(start, stop).indices(os.fstat(file.fileno()).st_size)
                return _read_all(file.fileno(), first, last)
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as error:
            raise _explained("read", self.path / name, error) from error

    def create(self, name: str, data: bytes) -> None:
        """Write a new blob, all of it or nothing; a name that is taken is an error."""
        check_name(name)
        target = self.path / name
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            _write_new(part, data)
            _place(part, target)
        except FileExistsError as error:
            raise StoreError(
                f"there is already a blob {target}: blobs are never overwritten, give each one its own name"
            ) from error
        except OSError as error:
            raise _explained("write", target, error) from error
        finally:
            with suppress(NotADirectoryError):
                part.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error."""
        check_name(name)
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _explained("delete", self.path / name, error) from error

    def sweep(self, age_s: float) -> None:
        """Remove folders without blobs, and files that killed writers left unfinished at least `age_s` seconds ago."""
        now_s = time.time()
        for folder, _, names in os.walk(self.path, topdown=False):
            for path in (Path(folder, name) for name in names if _PART.fullmatch(name)):
                with suppress(OSError):
                    if abs(now_s - path.stat().st_mtime) > age_s:
                        path.unlink()
            if Path(folder) != self.path:
                # Whoever is about to write there makes it again.
                with suppress(OSError):
                    Path(folder).rmdir()


def _write_new(part: Path, data: bytes) -> None:
    """Write a file, and make its folder where there is none, again if another process sweeps it away in between."""
    with suppress(FileNotFoundError):
        part.write_bytes(data)
        return
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # What exists and is no folder is a file, or was a folder a moment ago.
            if not (attempts_left and isinstance(error, FileNotFoundError | FileExistsError)):
                raise _explained("make", part.parent, error) from error
            continue
        try:
            part.write_bytes(data)
        except FileNotFoundError:
            if not attempts_left:
                raise
        else:
            return


def check_name(name: str) -> None:
    """Raise StoreError if `name` is not the name of a blob."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} is not the name of a blob: use letters, digits, '.', '_', '-' in parts divided by '/'"
        )


def _walk(folder: Path, above: str, prefix: str) -> Iterator[Blob]:
    """Yield what lies in a folder; what vanishes meanwhile is left out, another process may be deleting.

    `above` is the name of the folder.  Only that whose name starts with `prefix` is looked at: a stat may be slow.
    """
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        name = above + entry.name
        if entry.name.startswith(".") or not name.startswith(prefix):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{name}/", prefix)
            continue
        try:
            facts = entry.stat()
        except FileNotFoundError:
            continue
        yield Blob(name, facts.st_size, facts.st_mtime)


def _read_all(descriptor: int, first: int, last: int) -> bytes:
    """Return bytes ``first:last`` of a file; one call may return less than it was asked for."""
    parts = []
    while first < last:
        part = os.pread(descriptor, last - first, first)
        if not part:
            break
        parts.append(part)
        first += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _place(part: Path, target: Path) -> None:
    """Give a finished file its name; a link fails where the name is taken, a rename would not."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from error
        part.rename(target)


def _explained(verb: str, path: Path, error: OSError) -> StoreError:
    hint = _HINTS.get(error.errno or 0, "name another directory if this stays so")
    return StoreError(f"cannot {verb} {path}: {error.strerror or error} - {hint}.")
