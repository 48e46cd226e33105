"""Logical files: ``lfn://scope:name`` is read from the nearest replica that works.

It is a file system of fsspec, so uproot, coffea and this package read a logical file as any other.  Where its replicas
are is known to this process (`know`): `coffea_dirac.resolve` tells it, and to workers the task of a run does.  Every
range of bytes is asked for by itself, so a storage may also fail in the middle of a file.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from coffea_dirac.errors import CredentialError, NoReplicaError, chain
from coffea_dirac.inputs.health import FORBIDDEN, Damage, DamagedError, Health, Verify
from coffea_dirac.inputs.storages import storage_of
from coffea_dirac.interfaces import LogicalFile, Replica
from coffea_dirac.redact import without_secrets
from coffea_dirac.sites import near_to
from coffea_dirac.tokens import bearer_token, trouble

PREFIX = "lfn://"
_READERS = ("uproot", "pyarrow")
T = TypeVar("T")


class Told(NamedTuple):
    """What a process has to know to read logical files: where they are, which RSEs are near a site, what to check."""

    files: tuple[LogicalFile, ...] = ()
    near: Mapping[str, tuple[str, ...]] = {}
    weights: Mapping[str, float] = {}
    whole: frozenset[str] = frozenset()
    heads: Mapping[str, str] = {}


_known: dict[str, LogicalFile] = {}
_near: dict[str, tuple[str, ...]] = {}
_weights: dict[str, float] = {}
_whole: set[str] = set()
_sizes: dict[str, int] = {}
"""What storages say of files whose size no catalog knows."""
_health = Health()


def know(
    files: Iterable[LogicalFile],
    near: Mapping[str, Sequence[str]] | None = None,
    weights: Mapping[str, float] | None = None,
    *,
    verify: Verify = "size",
) -> None:
    """Take notice of where files are, of which RSEs to read first, and of what to check before."""
    new = {file.lfn: file for file in files}
    _known.update(new)
    _near.update((site, tuple(rses)) for site, rses in (near or {}).items())
    _weights.update(weights or {})
    (_whole.update if verify == "adler32" else _whole.difference_update)(new)
    _health.forget_heads(new)
    for lfn in new:
        _sizes.pop(lfn, None)


def take(told: Told) -> None:
    """Take over what another process has `told`."""
    know([file for file in told.files if file.lfn not in told.whole], told.near, told.weights)
    know([file for file in told.files if file.lfn in told.whole], verify="adler32")
    _health.heads.update(told.heads)


def told(filenames: Iterable[str]) -> Told:
    """Return what another process has to know to read these files; nothing for those that are no logical files."""
    found = {file.lfn: file for file in map(logical_file, filenames) if file is not None}
    if not found:
        return Told()
    heads = {lfn: head for lfn, head in list(_health.heads.items()) if lfn in found}
    return Told(tuple(found.values()), dict(_near), dict(_weights), frozenset(_whole & found.keys()), heads)


def logical_file(filename: str) -> LogicalFile | None:
    """Return what is known of a file by its URL.

    Examples
    --------
    >>> know([LogicalFile("mc:a.root", 10, "0badcafe", ())])
    >>> logical_file("lfn://mc:a.root").size_bytes
    10
    >>> logical_file("a.root") is None
    True
    """
    return _known.get(filename.removeprefix(PREFIX)) if filename.startswith(PREFIX) else None


def sites_of(filename: str) -> frozenset[str]:
    """Return the sites near which a file lies; none if it is no logical file, or nobody has told what is near.

    Examples
    --------
    >>> know([LogicalFile("mc:b.root", 1, "", (Replica("mc:b.root", "IT", "root://i//b"),))], {"LCG.CNAF.it": ["IT"]})
    >>> sites_of("lfn://mc:b.root")
    frozenset({'LCG.CNAF.it'})
    """
    file = logical_file(filename)
    rses = {replica.rse for replica in file.replicas} if file is not None else set()
    return frozenset(site for site, near in _near.items() if rses.intersection(near))


def read_here(filename: str) -> list[str]:
    """Return the paths on this machine that are opened when an input file is read.

    Examples
    --------
    >>> know([LogicalFile("mc:e", 1, "", (Replica("mc:e", "IT", "root://i//e"), Replica("mc:e", "HERE", "/data/e")))])
    >>> read_here("lfn://mc:e"), read_here("file:///data/f"), read_here("root://i//f")
    (['/data/e'], ['/data/f'], [])
    """
    file = logical_file(filename)
    places = [filename] if file is None else [replica.pfn for replica in file.replicas]
    return [path for path in (place.removeprefix("file://") for place in places) if path and "://" not in path]


def has_checksum(file: LogicalFile) -> bool:
    """Whether replicas of a file can be compared with what the catalog says of it."""
    return file.size_bytes >= 0 and bool(file.adler32)


def what_it_holds(filename: str) -> str:
    """Return what tells the content of a logical file without opening it; empty if nothing does, or it is none.

    Examples
    --------
    >>> know([LogicalFile("mc:c.root", 10, "0badcafe", ()), LogicalFile("mc:d.root", -1, "", ())])
    >>> what_it_holds("lfn://mc:c.root"), what_it_holds("lfn://mc:d.root")
    ("('logical file 1', 'mc:c.root', 10, '0badcafe')", '')
    """
    file = logical_file(filename)
    if file is None or not (file.request or has_checksum(file)):
        return ""
    return repr(("logical file 1", *((file.lfn, "request", file.request) if file.request else file[:3])))


class LogicalFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The file system of ``lfn://``, which can only be read."""

    protocol = "lfn"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return [cls._strip_protocol(one) for one in path] if isinstance(path, list) else path.removeprefix(PREFIX)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file, from the catalog if it knows."""
        name = self._strip_protocol(path)
        file = _known.get(name)
        size = file.size_bytes if file is not None and file.size_bytes >= 0 else _size_of(name)
        return {"name": name, "size": size, "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return a range of bytes."""
        (data,) = self.cat_ranges([path], [start], [end])
        return data

    def cat_ranges(self, paths: Any, starts: Any, ends: Any, *_: Any, **__: Any) -> list[bytes]:
        """Return ranges of bytes; those of one file in one request, if its storage can."""
        names = [self._strip_protocol(path) for path in paths]
        starts = starts if isinstance(starts, Sequence) else [starts] * len(names)
        ends = ends if isinstance(ends, Sequence) else [ends] * len(names)
        found: dict[int, bytes] = {}
        for name in dict.fromkeys(names):
            places = [i for i, other in enumerate(names) if other == name]
            size = self.info(name)["size"]
            ranges = [slice(starts[i], ends[i]).indices(size)[:2] for i in places]
            found.update(zip(places, _read(name, ranges), strict=True))
        return [found[i] for i in range(len(names))]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _File(self, path, mode, **{"cache_type": "readahead", **options})


class _File(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


def _size_of(name: str) -> int:
    if name not in _sizes:
        _sizes[name] = _from_a_replica(name, lambda system, path: int(system.info(path)["size"]))
    return _sizes[name]


def _read(name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    def step(system: Any, path: str) -> list[bytes]:
        wanted = [(first, last) for first, last in ranges if first < last]
        if len(wanted) == 1:
            # Most requests are of this kind, and storages answer it faster than a list of one.
            found = iter([system.cat_file(path, start=wanted[0][0], end=wanted[0][1])])
        else:
            firsts, lasts = [first for first, _ in wanted], [last for _, last in wanted]
            found = iter(system.cat_ranges([path] * len(wanted), firsts, lasts, on_error="raise") if wanted else [])
        parts = [bytes(next(found)) if first < last else b"" for first, last in ranges]
        if any(len(part) != max(0, last - first) for part, (first, last) in zip(parts, ranges, strict=True)):
            raise OSError("the file ends early")
        return parts

    return _from_a_replica(name, step)


def _from_a_replica(name: str, step: Callable[[Any, str], T]) -> T:
    """Return what `step` returns for the first replica for which it does not fail."""
    file = _known.get(name)
    if file is None:
        raise NoReplicaError(f"nobody has told where {PREFIX}{name} is: name it with resolve(...) in this process")
    why = []
    for replica in _health.ranked(file, near_to(os.environ.get("DIRACSITE", ""), _near), _weights):
        if damage := _health.damage(replica):
            why.append(f"{replica.rse}: {damage}")
            continue
        try:
            system, path = storage_of(replica.pfn)
            _health.check(file, replica, system, path, "adler32" if name in _whole else "size")
            found = step(system, path)
        except Exception as error:  # noqa: BLE001 - storages fail in any way; if all do, each failure is told
            # Over HTTP what the storage has answered is behind "not found".
            behind = error.__cause__ if isinstance(error, FileNotFoundError) else None
            text = _one_line(behind or error)
            _health.blame(replica, error, text)
            why.append(f"{replica.rse}: {text}")
        else:
            _health.was_read(replica)
            return found
    said = f"no replica of {PREFIX}{name} can be read; " + ("; ".join(why) or "the catalog names none")
    refused = [bool(FORBIDDEN.search(text)) for text in why]
    problem = trouble(bearer_token()) if any(refused) else ""
    if problem and all(refused):
        # No file is bad, so none may be skipped.
        raise CredentialError(f"{said}. You were refused, and {problem}")
    raise NoReplicaError(f"{said}. You were refused, and {problem}" if problem else said)


def survive(filename: str, step: Callable[[], T], reset: Callable[[], None] = lambda: None) -> T:
    """Return what `step` returns; if it cannot decode what a replica has sent, that of another try with another one.

    Only reading a replica as a whole can prove it sound.  So another one is tried at once, and they are compared with
    the catalog when none is left: what fails with sound data is a bug, and is raised as it is.

    Raises
    ------
    NoReplicaError
        All replicas are damaged.
    """
    file = logical_file(filename)
    while True:
        try:
            return step()
        except Exception as error:
            if file is None or not _is_of_reading(error) or not _another_try(file, error):
                raise
        reset()


def news(filename: str) -> list[str]:
    """Return what was found of the replicas of a file since this was asked last."""
    return _health.news(filename.removeprefix(PREFIX)) if filename.startswith(PREFIX) else []


def claims(filename: str) -> tuple[Damage, ...]:
    """Return which replicas of a file were taken for damaged since this was asked last, and why."""
    return tuple(_health.claims(filename.removeprefix(PREFIX))) if filename.startswith(PREFIX) else ()


def proven(replica: Replica) -> str:
    """Return what is wrong with a replica by size or checksum, reading all of it; nothing if that cannot be said."""
    file = _known.get(replica.lfn)
    if file is None or not has_checksum(file):
        return ""
    try:
        system, path = storage_of(replica.pfn)
        size = system.info(path)["size"]
        if size == file.size_bytes:
            _health.verify(file, replica, system, path)
        return "" if size in (None, file.size_bytes) else f"it has {size} bytes, and {file.size_bytes} in the catalog"
    except DamagedError as error:
        return str(error)


def rses_read(filename: str) -> list[str]:
    """Return where this process has read a logical file from, as far as what it has got there was right."""
    return _health.rses_read(filename.removeprefix(PREFIX)) if filename.startswith(PREFIX) else []


def _is_of_reading(error: Exception) -> bool:
    """Whether what was read may have been damaged: its reader has failed, not because of a storage or a wrong name."""
    from uproot.exceptions import KeyInFileError

    links = chain(error)
    if any(isinstance(link, NoReplicaError | CredentialError | KeyInFileError) for link in links):
        return False
    frames = (frame for link in links for frame, _ in traceback.walk_tb(link.__traceback__))
    return any(frame.f_globals.get("__name__", "").partition(".")[0] in _READERS for frame in frames)


def _another_try(file: LogicalFile, error: Exception) -> bool:
    """Take the replicas that were read for damaged; return whether reading again may give something else."""
    suspects = _health.suspects(file.lfn)
    text = _one_line(chain(error)[-1], with_type=True)
    for replica in suspects:
        _health.has_damage(replica, text)
    if not suspects:
        return False
    return any(not _health.damage(replica) for replica in file.replicas) or _one_is_sound(file, error)


def _one_is_sound(file: LogicalFile, error: Exception) -> bool:
    """Return whether one of the replicas that are all taken for damaged is not."""
    if not has_checksum(file):
        for replica in file.replicas:
            _health.acquit(replica)
        return False
    why, is_one_sound = [], False
    for replica in file.replicas:
        try:
            _health.verify(file, replica, *storage_of(replica.pfn))
        except Exception as problem:  # noqa: BLE001 - storages fail in any way; if all do, each failure is told
            text = _one_line(problem)
            if isinstance(problem, DamagedError):
                _health.has_damage(replica, text)
            why.append(f"{replica.rse}: {text}")
        else:
            _health.acquit(replica)
            is_one_sound = True
    if is_one_sound:
        return True
    failed = _one_line(chain(error)[-1], with_type=True)
    raise NoReplicaError(
        f"no replica of {PREFIX}{file.lfn} can be read; {'; '.join(why)}. This was seen as {failed}"
    ) from error


def _one_line(error: BaseException, *, with_type: bool = False) -> str:
    text = " ".join(str(error).split())
    name = f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")
    return without_secrets(f"{name}: {text}" if with_type else text or name)
