"""What user code reads from outside while it runs: metadata keys and files.

A `Window` is open while a work item is processed.  Metadata reads come from `RecordingMetadata`, file opens from one
audit hook, installed at the first window and silent outside of them.  What a window saw is kept in the record and
checked at the next look-up (`Checker`), as a compiler cache's manifests are: same values, same contents, a hit.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coffea_dirac.context import let
from coffea_dirac.inputs.paths import counts, digest_path
from coffea_dirac.inputs.remembered import Opened, Remembered
from coffea_dirac.interfaces import Discovered, Json

# Readers of source code: what they open is the code itself (already in the fingerprint) or a message about it.
# And the reader of tokens, which say who reads and not what, and those by which dask's tasks hand data to each other.
_CODE_READERS = frozenset(
    "importlib._bootstrap_external importlib._bootstrap linecache tokenize zipimport coffea_dirac.tokens "
    "partd.file locket".split()
)
_window: ContextVar[Window | None] = ContextVar("coffea_dirac_window", default=None)


class Window:
    """What one run of user code read and wrote.

    Threads that it started may still enter what they open while others look, so these look at copies.

    Parameters
    ----------
    ignored : iterable of str
        Files and directories whose opens do not count: the input file, the store.
    reaches : callable
        The name of a function -> whether the code that runs may call it, and so depend on what it has kept.
    """

    def __init__(self, ignored: Iterable[str] = (), reaches: Callable[[str], bool] = lambda name: True) -> None:
        self.ignored = tuple(os.path.realpath(p) for p in ignored)
        self._reaches = reaches
        self.metadata: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.written: set[str] = set()
        self.unchecked: str = ""

    def enter(self, remembered: Iterable[Opened]) -> None:
        """Enter files that were opened before, of which the code may have kept something."""
        for name, path, digest, by in remembered:
            is_ignored = any(path == p or path.startswith(p.rstrip("/") + "/") for p in self.ignored)
            if is_ignored or not self._reaches(by):
                continue
            if self.files.setdefault(name, digest) != digest and name not in self.written:
                self.unchecked = self.unchecked or f"{name} was read earlier in this process with other content"

    def leave_out(self, directories: Iterable[str]) -> None:
        """Forget what was read and written below some directories."""
        roots = tuple(os.path.realpath(directory) + "/" for directory in directories)
        for name in (*self.written.copy(), *self.files.copy()):
            if os.path.realpath(name).startswith(roots):
                self.written.discard(name)
                self.files.pop(name, None)

    def inputs(self) -> tuple[Discovered, ...]:
        """Return everything seen, sorted."""
        written = self.written.copy()
        files = [Discovered("file", name, digest) for name, digest in self.files.copy().items() if name not in written]
        metadata = [Discovered("metadata", name, digest) for name, digest in self.metadata.copy().items()]
        return tuple(sorted([*files, *metadata, *(Discovered("written", name, "") for name in written)]))


class recording(let[Window | None]):  # noqa: N801 - read as a statement, as `let` is
    """Note in a window the files that are opened inside the ``with`` block, by this thread and by threads it starts."""

    __slots__ = ("_opened",)

    def __init__(self, window: Window) -> None:
        super().__init__(_window, window)
        self._opened = window

    def __enter__(self) -> None:
        super().__enter__()
        _hook.opened(self._opened)

    def __exit__(self, *_: object) -> None:
        _hook.closed(self._opened)
        self._opened.enter(_remembered)
        super().__exit__()


def window_at_hand() -> Window | None:
    """Return the window that is open here: inside a stage it is that of the stage."""
    return _window.get()


def cannot_be_checked(why: str) -> None:
    """Say of what runs in the window at hand that its result depends on something that no later look can compare."""
    window = window_at_hand()
    if window is not None:
        window.unchecked = window.unchecked or why


def unrecorded() -> AbstractContextManager[None]:
    """Let what is opened inside the ``with`` block count for no window: it is this package that reads."""
    return let(_window, Window())


def made(path: str) -> None:
    """Let a file that was just written count as read: what is kept with it holds as long as it is there, unchanged."""
    if (window := _window.get()) is not None:
        window.files[path] = digest_path(path)


class _Hook:
    """The audit hook: there is one for the life of the process, since Python cannot take one away."""

    def __init__(self) -> None:
        self._installed = False
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Window, list[threading.Thread]]] = {}
        self._busy = threading.local()

    def opened(self, window: Window) -> None:
        threads = threading.enumerate()
        with self._lock:
            if not self._installed:
                sys.addaudithook(self)
                self._installed = True
            self._open[id(window)] = (window, threads)

    def closed(self, window: Window) -> None:
        with self._lock:
            self._open.pop(id(window), None)

    def is_open(self, window: Window) -> bool:
        """Whether user code runs in a window; in `unrecorded` it does not."""
        return id(window) in self._open

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._open or event not in _EVENTS or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            for window in self._windows():
                _note_event(window, event, args)
        finally:
            self._busy.on = False

    def _windows(self) -> list[Window]:
        here = _window.get()
        if here is not None:
            return [here]
        # A thread that the user's code started has no window of its own: it counts for every open one that it is
        # younger than.
        me = threading.current_thread()
        return [window for window, threads in list(self._open.values()) if me not in threads and not _is_own_thread()]


_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "sqlite3.connect"})
_hook = _Hook()
_remembered = Remembered()


def _is_own_thread() -> bool:
    """Whether this thread belongs to dask or to a reader of the input, which open nothing on the user's behalf."""
    return threading.current_thread().name.startswith(("Dask-", "IO loop", "Profile", "TCP-Executor", "fsspec"))


def _note_event(window: Window, event: str, args: tuple[Any, ...]) -> None:
    name = args[0] if args else None
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str | os.PathLike) or _opened_by_import():
        return
    shown = os.fspath(name)
    if not isinstance(shown, str):
        return
    path = os.path.realpath(shown)
    if not counts(path, window.ignored):
        return
    if event == "open" and _is_write(args):
        window.written.add(shown)
        if _reads_too(args) and Path(path).exists():
            window.unchecked = window.unchecked or f"{shown} is opened for reading and writing at once"
    elif shown not in window.written and shown not in window.files:
        window.files[shown] = digest_path(path)
        if _hook.is_open(window):
            _remembered.note(shown, path, window.files[shown], sys._getframe(2))


def _opened_by_import() -> bool:
    # Frames: this function, _note_event, _Hook.__call__, then whoever opened.
    frame: Any = sys._getframe(3)
    return frame is not None and frame.f_globals.get("__name__") in _CODE_READERS


def _is_write(args: tuple[Any, ...]) -> bool:
    mode, flags = (args[1] if len(args) > 1 else None), (args[2] if len(args) > 2 else 0)
    if isinstance(mode, str):
        return any(c in mode for c in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))


def _reads_too(args: tuple[Any, ...]) -> bool:
    mode, flags = (args[1] if len(args) > 1 else None), (args[2] if len(args) > 2 else 0)
    if isinstance(mode, str):
        return "r+" in mode or "+b" in mode.replace("w", "").replace("r", "")
    return bool(isinstance(flags, int) and flags & os.O_RDWR and not flags & os.O_TRUNC)


class Checker:
    """Checks discovered inputs against the present, reading each file once.

    Parameters
    ----------
    known : mapping
        Digests of files that were read a moment ago, by name.
    """

    def __init__(self, known: Mapping[str, str] = MappingProxyType({})) -> None:
        self._files = dict(known)

    def file(self, name: str) -> str:
        """Return the digest of what is at `name` now."""
        if name not in self._files:
            self._files[name] = digest_path(name)
        return self._files[name]

    def first_change(self, inputs: Iterable[Discovered], metadata: Callable[[str], str]) -> Mapping[str, Json] | None:
        """Return what changed first among `inputs` as a reason, or None if nothing did."""
        for kind, name, digest in inputs:
            if kind == "written":
                continue
            if (self.file(name) if kind == "file" else metadata(name)) != digest:
                return {"reason": "new content" if kind == "file" else "new metadata", "where": name}
        return None
