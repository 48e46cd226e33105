"""What runs in place of a graph's tasks: the same function, seen while it reads files, and its result kept.

A result that came from files read on the way is handed on as `Traced`, with what was read, to the tasks that use it;
what leaves the graph is plain.
"""

from __future__ import annotations

import atexit
import hashlib
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

from dask.utils import funcname

from coffea_dirac import codecs
from coffea_dirac.context import let
from coffea_dirac.errors import CodecError, CorruptRecordError
from coffea_dirac.graph.doors import OPEN, SHUT
from coffea_dirac.inputs.discovery import Window, cannot_be_checked, recording
from coffea_dirac.inputs.paths import digest_path
from coffea_dirac.interfaces import Discovered, Record, Row, Store
from coffea_dirac.packs import read
from coffea_dirac.stages.handles import ACTIVE
from coffea_dirac.stages.keeper import PACK_SECONDS, Keeper

NOTES = hashlib.sha256(b"notes of dask tasks 1").hexdigest()
"""The key under which workers say why they have kept nothing."""


class Place(NamedTuple):
    """Where results of one session are kept, and what is read without telling anything: inputs, the store."""

    store: Store
    session: str
    ignored: tuple[str, ...] = ()


class Keep(NamedTuple):
    """Under what a result is kept; `inputs` were discovered when the results it is made from were."""

    fingerprint: str
    stage: str
    template: str
    inputs: tuple[Discovered, ...] = ()


class Traced:
    """A result with the files that it came from, or why that cannot be told."""

    __slots__ = ("inputs", "problem", "value")

    def __init__(self, value: Any, inputs: frozenset[Discovered], problem: str) -> None:
        self.value, self.inputs, self.problem = value, inputs, problem

    def __reduce__(self) -> tuple[Any, ...]:
        return Traced, (self.value, self.inputs, self.problem)


class Trace:
    """What a task's arguments and its own reading have come to."""

    def __init__(self) -> None:
        self.inputs: set[Discovered] = set()
        self.problem = ""

    def plain(self, value: Any, *, is_nested: bool) -> Any:
        """Return a value without traces; they are noted here."""
        if type(value) is Traced:
            self.inputs |= value.inputs
            self.problem = self.problem or value.problem
            return value.value
        if not is_nested:
            return value
        if type(value) is dict:
            return {self.plain(k, is_nested=True): self.plain(v, is_nested=True) for k, v in value.items()}
        if type(value) in (list, tuple, set):
            return type(value)(self.plain(v, is_nested=True) for v in value)
        return value

    def read(self, window: Window) -> None:
        """Note what a window has seen; what a task writes is not written again by loading its result."""
        if window.written:
            self.problem = self.problem or f"it writes {min(window.written.copy())}"
        for name, digest in window.files.copy().items():
            if digest_path(name) != digest or digest.startswith("unreadable"):
                self.problem = self.problem or f"{name} changed while it was read, or cannot be read again"
        self.problem = self.problem or window.unchecked
        self.inputs.update(window.inputs())


def _scratch() -> list[str]:
    """Return where the workers of this process keep what shuffles move: threads of theirs write it meanwhile."""
    worker = sys.modules.get("distributed.worker")
    return [str(one.local_directory) for one in list(worker.Worker._instances)] if worker is not None else []


class Run:
    """A task's function, run as it is in a graph that is looked at.

    Parameters
    ----------
    func : callable
        The task's function.
    place : Place
        Where its result is kept.
    keep : Keep, optional
        None: it is not.
    nested : tuple
        Positions and names of arguments that hold several results.
    is_output : bool
        The result leaves the graph.
    """

    __slots__ = ("func", "is_output", "keep", "nested", "place")

    def __init__(
        self,
        func: Callable[..., Any],
        place: Place,
        keep: Keep | None = None,
        *,
        nested: tuple[int | str, ...] = (),
        is_output: bool = False,
    ) -> None:
        self.func, self.place, self.keep, self.nested, self.is_output = func, place, keep, nested, is_output

    def __reduce__(self) -> tuple[Any, ...]:
        return _run, (self.func, self.place, self.keep, self.nested, self.is_output)

    @property
    def __name__(self) -> str:
        # dask's messages, logs and dashboard show the names of functions.
        return str(funcname(self.func))

    def __dask_tokenize__(self) -> Any:
        # The scheduler compares tasks that come twice under one key.
        return ("run", self.func, self.keep.fingerprint if self.keep is not None else "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        trace, nested = Trace(), self.nested
        args = tuple([trace.plain(a, is_nested=i in nested) for i, a in enumerate(args)])
        if kwargs:
            kwargs = {name: trace.plain(a, is_nested=name in nested) for name, a in kwargs.items()}
        window = Window()
        window.ignored = self.place.ignored
        started = time.perf_counter()
        with let(ACTIVE, None), let(OPEN, SHUT), recording(window):
            value = self.func(*args, **kwargs)
        seconds = time.perf_counter() - started
        if window.files or window.written or window.unchecked:
            window.leave_out(_scratch())
            trace.read(window)
        if self.keep is not None:
            self._keep(self.keep, value, trace, seconds)
        if self.is_output or not (trace.inputs or trace.problem):
            return value
        return Traced(value, frozenset(trace.inputs), trace.problem)

    def _keep(self, keep: Keep, value: Any, trace: Trace, seconds: float) -> None:
        writer = writer_of(self.place)
        if trace.problem:
            writer.note(f"the result of {keep.stage} is computed and not kept: {trace.problem}")
            return
        try:
            payload = codecs.encode(value)
        except CodecError as error:
            writer.note(f"what {keep.stage} returns is computed and not kept: {error}")
            return
        info = {
            "stage": keep.stage,
            "template": keep.template,
            "seconds": round(seconds, 6),
            "created_s": round(time.time(), 3),
        }
        inputs = tuple(sorted(trace.inputs.union(keep.inputs)))
        writer.keep(Record(keep.fingerprint, payload.data, payload.codec, inputs, "", info))


def _run(
    func: Callable[..., Any], place: Place, keep: Keep | None, nested: tuple[int | str, ...], is_output: bool
) -> Run:
    return Run(func, place, keep, nested=nested, is_output=is_output)


class Tolerant:
    """A reader that tells of errors in a report instead of raising them: what comes after an error is not kept."""

    __slots__ = ("func",)

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func

    def __reduce__(self) -> tuple[Any, ...]:
        return Tolerant, (self.func,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what was read, with the report."""
        result = self.func(*args, **kwargs)
        errors = [error for error in result[1]["exception"].to_list() if error is not None]
        if errors:
            cannot_be_checked(f"reading {args[0] if args else ''} ended with {errors[0]}, which its report tells")
        return result


class Load:
    """Reads a kept result; small ones travel with the graph, large ones are read where they are needed."""

    __slots__ = ("payload", "row", "store")

    def __init__(self, store: Store, row: Row, payload: bytes | None) -> None:
        self.store, self.row, self.payload = store, row, payload

    def __reduce__(self) -> tuple[Any, ...]:
        return Load, (self.store, self.row, self.payload)

    def __dask_tokenize__(self) -> Any:
        return ("load", self.row.key)

    def __call__(self) -> Any:
        """Return the result.

        Raises
        ------
        StoreError
            The store cannot be read here.
        CorruptRecordError
            It was sound a moment ago, when the graph was made, and is not now.
        """
        payload = self.payload
        if payload is None:
            found = read(self.store, [self.row])[self.row]
            if not isinstance(found, bytes):
                raise CorruptRecordError(
                    f"{found}: it was there when the graph was made. Compute it again; the cache finds what is missing"
                )
            payload = found
        return codecs.decode(self.row.codec, payload)


# ------------------------------------------------------------------------------------------------------------- writing


class Writer:
    """What this process has to write for one session; a pack is closed soon after its first record."""

    def __init__(self, place: Place) -> None:
        self._keeper = Keeper(place.store, place.session, "graph")
        self._lock = threading.RLock()
        self._told: set[str] = set()
        self._timer: threading.Timer | None = None

    @property
    def problem(self) -> str:
        """Why the store cannot be written, empty if it can."""
        return self._keeper.problem

    def keep(self, record: Record) -> None:
        """Take a record."""
        with self._lock:
            self._keeper.keep(record)
            if self._timer is None:
                # Nobody tells a worker that a graph has come to its end.
                self._timer = threading.Timer(PACK_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def note(self, text: str) -> None:
        """Tell the one who computes the graph, once for each text."""
        if text not in self._told:
            self._told.add(text)
            self.keep(Record(NOTES, text.encode(), "note", info={"note": text, "created_s": round(time.time(), 3)}))

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._keeper.flush()

    def taken(self) -> list[Row]:
        """Write what waits; return the rows that came since this was asked for last."""
        self.flush()
        with self._lock:
            return self._keeper.taken()


_writers: dict[tuple[str, str], Writer] = {}
_lock = threading.Lock()


def writer_of(place: Place) -> Writer:
    """Return this process's writer for a session."""
    name = place.store.url, place.session
    with _lock:
        found = _writers.get(name)
        if found is None:
            if not _writers:
                atexit.register(flush_all)
                Finalize(None, flush_all, exitpriority=10)
            found = _writers[name] = Writer(place)
        return found


def close(place: Place) -> None:
    """Forget the writer of a session that is over."""
    with _lock:
        _writers.pop((place.store.url, place.session), None)


def flush_all() -> None:
    """Write what this process still has; a worker does so when it is asked, and when it ends."""
    for writer in list(_writers.values()):
        writer.flush()
